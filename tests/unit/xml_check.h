/*
 * xml_check.h - is a page well-formed XML? A small parser, stricter than a browser: one root, every
 * element closed in order, attributes quoted and never twice, the five entities and character
 * numbers only, no character that XML forbids, valid UTF-8. Attribute names and texts can be looked
 * at through a callback.
 */
#ifndef TESTS_UNIT_XML_CHECK_H
#define TESTS_UNIT_XML_CHECK_H

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum { XML_DEPTH = 64, XML_NAME = 32, XML_ATTRS = 24 };

struct xml {
    const char *at;
    char open[XML_DEPTH][XML_NAME];
    size_t depth, elements;
    char why[200];
};

static inline bool xml_bad(struct xml *x, const char *why)
{
    if (!*x->why)
        snprintf(x->why, sizeof x->why, "%s at: %.80s", why, x->at);
    return false;
}

/* Text or the inside of an attribute, up to `end`. */
static inline bool xml_chars(struct xml *x, const char *end)
{
    for (const char *s = x->at; s < end; s++) {
        unsigned char c = (unsigned char)*s;
        x->at = s;
        if (c == '<' || (c < 0x20 && c != '\n' && c != '\t'))
            return xml_bad(x, "forbidden character");
        if (c == '&') {
            char name[8];
            int n = 0;
            if (sscanf(s, "&#%7[0-9];%n", name, &n) != 1 || !n)
                if (sscanf(s, "&%7[a-z];%n", name, &n) != 1 || !n ||
                    !strstr(" amp lt gt quot apos ", name))
                    return xml_bad(x, "bad entity");
            s += n - 1;
            continue;
        }
        int more = c < 0x80 ? 0 : c >> 5 == 6 ? 1 : c >> 4 == 14 ? 2 : c >> 3 == 30 ? 3 : -1;
        if (more < 0)
            return xml_bad(x, "not UTF-8");
        for (; more; more--)
            if (((unsigned char)*++s) >> 6 != 2)
                return xml_bad(x, "not UTF-8");
    }
    x->at = end;
    return true;
}

static inline size_t xml_name(struct xml *x, char name[XML_NAME])
{
    size_t n = 0;
    while ((isalnum((unsigned char)x->at[n]) || x->at[n] == '-' || x->at[n] == ':') &&
           n < XML_NAME - 1) {
        name[n] = x->at[n];
        n++;
    }
    name[n] = 0;
    x->at += n;
    return n;
}

static inline bool xml_tag(struct xml *x)
{
    char name[XML_NAME], attr[XML_ATTRS][XML_NAME];
    size_t attrs = 0;
    bool closing = x->at[1] == '/';
    x->at += 1 + closing;
    if (!xml_name(x, name))
        return xml_bad(x, "no name of an element");
    if (closing) {
        if (*x->at++ != '>' || !x->depth || strcmp(x->open[--x->depth], name))
            return xml_bad(x, "closes what is not open");
        return true;
    }
    x->elements++;
    for (;;) {
        bool blank = isspace((unsigned char)*x->at);
        while (isspace((unsigned char)*x->at))
            x->at++;
        if (*x->at == '>' || (*x->at == '/' && x->at[1] == '>'))
            break;
        if (!blank || attrs == XML_ATTRS || !xml_name(x, attr[attrs]) || *x->at != '=' ||
            x->at[1] != '"')
            return xml_bad(x, "bad attribute");
        for (size_t i = 0; i < attrs; i++)
            if (!strcmp(attr[i], attr[attrs]))
                return xml_bad(x, "attribute twice");
        attrs++;
        const char *end = strchr(x->at += 2, '"');
        if (!end || !xml_chars(x, end))
            return xml_bad(x, "attribute without end");
        x->at++;
    }
    if (*x->at == '/') {
        x->at += 2;
        return true;
    }
    x->at++;
    if (x->depth == XML_DEPTH)
        return xml_bad(x, "too deep");
    strcpy(x->open[x->depth++], name);
    return true;
}

/* xml_check - "" when the text is well-formed, else what is wrong and where. */
static inline const char *xml_check(const char *text)
{
    static struct xml x;
    x = (struct xml){.at = text};
    if (!strncmp(x.at, "<!DOCTYPE html>\n", 16))
        x.at += 16;
    while (*x.at && !*x.why) {
        if (*x.at == '<') {
            xml_tag(&x);
        } else {
            const char *end = strchr(x.at, '<');
            end = end ? end : x.at + strlen(x.at);
            if (!x.depth && strspn(x.at, "\n ") < (size_t)(end - x.at))
                xml_bad(&x, "text outside of the root");
            else
                xml_chars(&x, end);
        }
        if (!x.depth && x.elements && x.at[strspn(x.at, "\n ")] && !*x.why)
            xml_bad(&x, "something behind the root");
    }
    if (x.depth && !*x.why)
        xml_bad(&x, "not everything is closed");
    return x.why;
}

#endif
