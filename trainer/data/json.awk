# json.awk - a JSON text as lines "PATH<tab>VALUE", one for each string, number, true, false, null.
#
# {"a": [{"b": "x"}, 7]} gives ".a[0].b<tab>x" and ".a[1]<tab>7". Strings are decoded but for \u
# escapes above ASCII, which stay as they are, and control characters, which become blanks: a value
# is always one line. Exit status 3 when the text is not JSON.

{
    text = text $0 "\n"
}

function fail(what) {
    printf "not JSON: %s before \"%s\"\n", what, substr(text, at, 20) | "cat >&2"
    exit 3
}

function blanks() {
    if (match(substr(text, at, 200), /^[ \t\r\n]+/)) {
        at += RLENGTH
        blanks()
    }
}

function string(    out, c, h) {
    if (substr(text, at, 1) != "\"")
        fail("no string")
    at++
    out = ""
    while ((c = substr(text, at, 1)) != "\"") {
        if (c == "" || c == "\n")
            fail("a string without an end")
        if (c == "\\") {
            at++
            c = substr(text, at, 1)
            if (c == "u") {
                h = tolower(substr(text, at + 1, 4))
                if (h !~ /^[0-9a-f][0-9a-f][0-9a-f][0-9a-f]$/)
                    fail("a wrong escape")
                at += 4
                c = 16 * (index("0123456789abcdef", substr(h, 3, 1)) - 1) + \
                    index("0123456789abcdef", substr(h, 4, 1)) - 1
                c = h ~ /^00[2-7]/ ? sprintf("%c", c) : h ~ /^00[01]/ ? " " : "\\u" h
            } else if (c ~ /[bfnrt]/)
                c = " "
            else if (c !~ /["\\\/]/)
                fail("a wrong escape")
        }
        out = out c
        at++
    }
    at++
    return out
}

function value(path, depth,    i, word) {
    blanks()
    if (depth > 64)
        fail("too deep a nesting")
    if (substr(text, at, 1) == "{") {
        at++
        blanks()
        if (substr(text, at, 1) == "}") {
            at++
            return
        }
        do {
            blanks()
            word = string()
            blanks()
            if (substr(text, at++, 1) != ":")
                fail("no colon")
            value(path "." word, depth + 1)
            blanks()
            word = substr(text, at++, 1)
        } while (word == ",")
        if (word != "}")
            fail("an object without an end")
    } else if (substr(text, at, 1) == "[") {
        at++
        blanks()
        if (substr(text, at, 1) == "]") {
            at++
            return
        }
        i = 0
        do {
            value(path "[" i++ "]", depth + 1)
            blanks()
            word = substr(text, at++, 1)
        } while (word == ",")
        if (word != "]")
            fail("an array without an end")
    } else if (substr(text, at, 1) == "\"") {
        print path "\t" string()
    } else if (match(substr(text, at, 64), /^(true|false|null)/) ||
               match(substr(text, at, 64), /^-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?/)) {
        print path "\t" substr(text, at, RLENGTH)
        at += RLENGTH
    } else
        fail("no value")
}

END {
    at = 1
    value("", 0)
    blanks()
    if (at <= length(text))
        fail("more text")
}
