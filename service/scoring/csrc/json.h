/* The tokens of JSON that plain requests are made of, by RFC 8259. Each function answers whether there was one, and moves behind it.
 *
 * Knows single tokens. Does not know requests. Text ends with a NUL, which no token goes on after: nothing reads past it.
 */

#ifndef FULLFUNNEL_JSON_H
#define FULLFUNNEL_JSON_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "words.h"

static inline void skip_space(const char **text)
{
    while (**text == ' ' || **text == '\n' || **text == '\r' || **text == '\t') {
        ++*text;
    }
}

/* A bracket, a comma or a colon, with the space around it. */
static inline bool take(const char **text, char expected)
{
    skip_space(text);
    if (**text != expected) {
        return false;
    }
    ++*text;
    skip_space(text);
    return true;
}

static inline bool take_null(const char **text)
{
    if (strncmp(*text, "null", 4) != 0) {
        return false;
    }
    *text += 4;
    return true;
}

/* A string without escapes. */
static inline bool take_string(const char **text, String *string)
{
    if (**text != '"') {
        return false;
    }
    const unsigned char *at = (const unsigned char *)*text + 1;
    unsigned char all = 0;
    uint64_t hash = HASH_START;
    string->bytes = (const char *)at;
    for (; *at != '"'; at++) {
        if (*at < 0x20 || *at == '\\') {
            return false;
        }
        all |= *at;
        hash = hashed(hash, *at);
    }
    string->length = (const char *)at - string->bytes;
    string->hash = folded(hash);
    string->ascii = all < 0x80;
    *text = (const char *)at + 1;
    return true;
}

static inline bool is(const String *string, const char *word)
{
    return string->length == (Py_ssize_t)strlen(word) && memcmp(string->bytes, word, strlen(word)) == 0;
}

/* A number: whether it is written as an integer of at most 18 digits, and then that; and, of the nearest double, the
 * nearest float. */
typedef struct {
    bool is_integer;
    int64_t integer;
    float real;
} Number;

enum { EXACT_POWERS = 22 };
static const double POWERS[EXACT_POWERS + 1] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                                1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

static inline const char *take_digits(const char *at, uint64_t *number)
{
    while (*at >= '0' && *at <= '9') {
        *number = 10 * *number + (uint64_t)(*at++ - '0'); /* wraps around where there are more than 19 */
    }
    return at;
}

/* mantissa * 10^exponent, where it is certain: what is computed is off by less than 2^-51 of itself from the nearest double, and
 * all that is twice as near has the same nearest float. */
static inline bool to_float(uint64_t mantissa, Py_ssize_t exponent, float *real)
{
    if (exponent < -EXACT_POWERS || exponent > EXACT_POWERS) {
        return false;
    }
    double value = exponent < 0 ? (double)mantissa / POWERS[-exponent] : (double)mantissa * POWERS[exponent];
    double margin = value * 0x1p-50;
    *real = (float)value;
    return (float)(value - margin) == (float)(value + margin);
}

static inline bool take_number(const char **text, Number *number)
{
    bool negative = **text == '-';
    uint64_t mantissa = 0, power = 0;
    Py_ssize_t exponent = 0;
    const char *start = *text + negative, *at = take_digits(start, &mantissa);
    Py_ssize_t digits = at - start;
    if (digits == 0 || (digits > 1 && *start == '0')) {
        return false;
    }
    number->is_integer = digits <= 18 && *at != '.' && *at != 'e' && *at != 'E';
    if (number->is_integer) {
        number->integer = negative ? -(int64_t)mantissa : (int64_t)mantissa;
        number->real = (float)(double)number->integer;
        *text = at;
        return true;
    }
    if (*at == '.') {
        start = at + 1;
        at = take_digits(start, &mantissa);
        exponent = start - at;
        digits -= exponent;
        if (exponent == 0) {
            return false;
        }
    }
    bool certain = digits <= 19;
    if (*at == 'e' || *at == 'E') {
        bool down = at[1] == '-';
        start = at + 1 + (at[1] == '-' || at[1] == '+');
        at = take_digits(start, &power);
        certain = certain && at - start <= 3;
        if (at == start) {
            return false;
        }
        exponent += down ? -(Py_ssize_t)power : (Py_ssize_t)power;
    }
    if (certain && to_float(mantissa, exponent, &number->real)) {
        number->real = negative ? -number->real : number->real;
    } else {
        char *end;
        number->real = (float)PyOS_string_to_double(*text, &end, NULL);
        if (end != at) {
            return false;
        }
    }
    *text = at;
    return true;
}

/* Behind a value, whatever it is, if it is valid JSON; at the next thing that may end one, if it is not. */
static inline bool skip_value(const char **text)
{
    const char *at = *text;
    Py_ssize_t depth = 0;
    for (;; at++) {
        if (*at == '"') {
            for (at++; *at != '"'; at++) {
                at += *at == '\\';
                if (*at == 0) {
                    return false;
                }
            }
        } else if (*at == '[' || *at == '{') {
            depth++;
        } else if (*at == 0) {
            return false;
        } else if (depth == 0 && (*at == ',' || *at == ']' || *at == '}')) {
            break;
        } else if (*at == ']' || *at == '}') {
            depth--;
        }
    }
    *text = at;
    return true;
}

/* Whether valid JSON is nested deeper than `levels`. */
static inline bool is_deeper(const char *at, const char *end, Py_ssize_t levels)
{
    Py_ssize_t depth = 0;
    for (; at < end; at++) {
        if (*at == '"') {
            for (at++; at < end && *at != '"'; at++) {
                at += *at == '\\';
            }
        } else if (*at == '[' || *at == '{') {
            if (++depth > levels) {
                return true;
            }
        } else if (*at == ']' || *at == '}') {
            depth--;
        }
    }
    return false;
}

/* How many values the list has that begins here, and a number that those in it and in its lists do not exceed. */
static inline bool count_values(const char *at, Py_ssize_t *values, Py_ssize_t *members)
{
    Py_ssize_t depth = 0, commas = 0, outer = 0;
    for (;; at++) {
        switch (*at) {
        case '"':
            do {
                at++;
            } while (*at != '"' && *at != '\\' && *at != 0);
            if (*at != '"') {
                return false;
            }
            break;
        case '[':
            depth++;
            break;
        case ']':
            if (--depth == 0) {
                *values = outer + 1;
                *members = commas + 1;
                return true;
            }
            break;
        case ',':
            commas++;
            outer += depth == 1;
            break;
        case 0:
            return false;
        }
    }
}

#endif
