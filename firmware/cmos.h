/* CMOS RAM contents: cmos_fill() of platform.h. */
#include "platform.h"
