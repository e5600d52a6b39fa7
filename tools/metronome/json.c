#include <stdio.h>

#include "json.h"

void json_string(const char *text)
{
    putchar('"');
    for (const unsigned char *p = (const void *)text; *p; p++)
        if (*p < 0x20 || *p == '"' || *p == '\\')
            printf("\\u%04x", *p);
        else
            putchar(*p);
    putchar('"');
}
