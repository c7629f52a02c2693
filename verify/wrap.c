/* wrap.c - see wrap.h. */
#include "verify/wrap.h"

#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

size_t wrap_width(FILE *out)
{
    struct winsize w;
    int fd = fileno(out);
    return fd >= 0 && isatty(fd) && !ioctl(fd, TIOCGWINSZ, &w) ? w.ws_col : 0;
}

/* Where to break the n bytes of a line whose first `from` are not to be broken: the length of what
 * is written, n when it need not or cannot be broken. */
static size_t fits(const char *s, size_t n, size_t from, size_t width)
{
    size_t cut = width;
    if (n <= width)
        return n;
    while (cut > from && s[cut] != ' ')
        cut--;
    if (cut > from)
        return cut;
    while (width < n && s[width] != ' ') /* one long word */
        width++;
    return width;
}

void wrap_write(FILE *out, const char *text, size_t width, size_t indent)
{
    for (const char *end; *text; text = end) {
        const char *s = text;
        size_t room = width;
        end = text + strcspn(text, "\n");
        for (size_t from = strspn(s, " ");; from = 0) {
            size_t n = (size_t)(end - s), take = width ? fits(s, n, from, room) : n;
            size_t shown = take; /* no blanks at the end of what was broken */
            while (take < n && shown > from && s[shown - 1] == ' ')
                shown--;
            fwrite(s, 1, shown, out);
            for (s += take; s < end && *s == ' ';)
                s++;
            fputc('\n', out);
            if (s >= end)
                break;
            fprintf(out, "%*s", (int)indent, "");
            room = width - indent;
        }
        end += *end == '\n';
    }
}
