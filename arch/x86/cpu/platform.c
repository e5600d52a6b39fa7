#include "setup.h"
void platform_init(void){}
void smp_start(void){}
void lapic_eoi(void){}
void ipi_nmi_others(void){}
void ipi_send(unsigned c, uint8_t v){(void)c;(void)v;}
