/*
 * printf-like formatting: %d %i %u %x %X %p %s %c %% with h, hh, l, ll, z, width, precision (also *), 0, - and #. Pure;
 * an unknown conversion is copied as it is. tests/unit/test_format.c holds it equal to the C library's.
 */
#include "console.h"
#include "string.h"
#include <stdint.h>

struct output {
    char *to;
    size_t size, length; /* length counts also what did not fit */
};

struct conversion {
    bool left, zero, alternate, has_precision;
    int width, precision, size; /* size: bytes of the integer argument */
    char kind;
};

static void put(struct output *o, char c)
{
    if (o->length + 1 < o->size)
        o->to[o->length] = c;
    o->length++;
}

static void put_many(struct output *o, char c, int n)
{
    while (n-- > 0)
        put(o, c);
}

/* Text between its padding. `zeros` precede it: they come from a precision or the 0 flag. */
static void put_padded(struct output *o, const struct conversion *c, const char *prefix, int zeros, const char *text,
                       int n)
{
    int prefix_length = (int)strlen(prefix), fill = c->width - prefix_length - zeros - n;
    if (!c->left)
        put_many(o, ' ', fill);
    while (*prefix)
        put(o, *prefix++);
    put_many(o, '0', zeros);
    while (n-- > 0)
        put(o, *text++);
    if (c->left)
        put_many(o, ' ', fill);
}

static void put_number(struct output *o, const struct conversion *c, uint64_t value, bool negative)
{
    const char *digits = c->kind == 'X' ? "0123456789ABCDEF" : "0123456789abcdef", *prefix = negative ? "-" : "";
    unsigned base = c->kind == 'd' || c->kind == 'i' || c->kind == 'u' ? 10 : 16;
    char text[20];
    int at = sizeof text;

    if (c->kind == 'p' || (c->alternate && base == 16 && value))
        prefix = c->kind == 'X' ? "0X" : "0x";
    for (; value; value /= base)
        text[--at] = digits[value % base];
    if (at == sizeof text && !(c->has_precision && c->precision == 0))
        text[--at] = '0';
    int n = (int)sizeof text - at, zeros = 0;
    if (c->has_precision)
        zeros = c->precision - n;
    else if (c->zero && !c->left)
        zeros = c->width - n - (int)strlen(prefix);
    put_padded(o, c, prefix, zeros > 0 ? zeros : 0, text + at, n);
}

static void put_string(struct output *o, const struct conversion *c, const char *s)
{
    if (!s)
        s = "(null)";
    size_t n = strnlen(s, c->has_precision ? (size_t)c->precision : INT32_MAX);
    put_padded(o, c, "", 0, s, (int)n);
}

static const char *parse_flags(const char *f, struct conversion *c)
{
    for (;; f++) {
        if (*f == '-')
            c->left = true;
        else if (*f == '0')
            c->zero = true;
        else if (*f == '#')
            c->alternate = true;
        else
            return f;
    }
}

static const char *parse_count(const char *f, int *count)
{
    for (*count = 0; *f >= '0' && *f <= '9' && *count < 100000; f++)
        *count = *count * 10 + *f - '0';
    return f;
}

static const char *parse_size(const char *f, struct conversion *c)
{
    c->size = sizeof(int);
    if (*f == 'h') {
        c->size = *++f == 'h' ? 1 : 2;
        f += c->size == 1;
    } else if (*f == 'l' || *f == 'z' || *f == 'j' || *f == 't') {
        c->size = 8;
        f += f[0] == 'l' && f[1] == 'l' ? 2 : 1;
    }
    return f;
}

/* A va_list in a struct can be passed by pointer on every ABI. */
struct arguments {
    va_list list;
};

static const char *parse(const char *f, struct conversion *c, struct arguments *a)
{
    f = parse_flags(f, c);
    if (*f == '*') {
        c->width = va_arg(a->list, int);
        if (c->width < 0) {
            c->left = true;
            c->width = -c->width;
        }
        f++;
    } else {
        f = parse_count(f, &c->width);
    }
    if (*f == '.') {
        c->has_precision = true;
        if (*++f == '*') {
            c->precision = va_arg(a->list, int);
            c->has_precision = c->precision >= 0;
            f++;
        } else {
            f = parse_count(f, &c->precision);
        }
    }
    f = parse_size(f, c);
    c->kind = *f;
    return *f ? f + 1 : f;
}

static uint64_t unsigned_argument(struct arguments *a, int size)
{
    if (size == 8)
        return va_arg(a->list, uint64_t);
    unsigned v = va_arg(a->list, unsigned);
    return size == 1 ? (uint8_t)v : size == 2 ? (uint16_t)v : v;
}

static int64_t signed_argument(struct arguments *a, int size)
{
    if (size == 8)
        return va_arg(a->list, int64_t);
    int v = va_arg(a->list, int);
    return size == 1 ? (int8_t)v : size == 2 ? (int16_t)v : v;
}

static void convert(struct output *o, const struct conversion *c, struct arguments *a, const char *from, const char *to)
{
    char byte;
    int64_t v;
    switch (c->kind) {
    case 'd':
    case 'i':
        v = signed_argument(a, c->size);
        put_number(o, c, v < 0 ? -(uint64_t)v : (uint64_t)v, v < 0);
        break;
    case 'u':
    case 'x':
    case 'X':
        put_number(o, c, unsigned_argument(a, c->size), false);
        break;
    case 'p':
        put_number(o, c, unsigned_argument(a, 8), false);
        break;
    case 's':
        put_string(o, c, va_arg(a->list, const char *));
        break;
    case 'c':
        byte = (char)va_arg(a->list, int);
        put_padded(o, c, "", 0, &byte, 1);
        break;
    case '%':
        put(o, '%');
        break;
    default:
        while (from < to)
            put(o, *from++);
    }
}

int vformat_line(char *to, size_t size, const char *format, va_list args)
{
    struct output o = {to, size, 0};
    struct arguments a;

    va_copy(a.list, args);
    while (*format) {
        if (*format != '%') {
            put(&o, *format++);
            continue;
        }
        struct conversion c = {0};
        const char *from = format;
        format = parse(format + 1, &c, &a);
        convert(&o, &c, &a, from, format);
    }
    va_end(a.list);
    if (size)
        to[o.length < size ? o.length : size - 1] = '\0';
    return (int)o.length;
}

int format_line(char *to, size_t size, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vformat_line(to, size, format, args);
    va_end(args);
    return n;
}
