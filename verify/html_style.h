/* html_style.h - the page's style sheet. Private to verify/html_*.c. */
#ifndef VERIFY_HTML_STYLE_H
#define VERIFY_HTML_STYLE_H

/* CSS in pieces, NULL-terminated; holds none of the characters that are special in XML. */
extern const char *const html_style[];

#endif
