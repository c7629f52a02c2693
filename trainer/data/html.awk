# html.awk - XHTML pages of the Debian handbook as plain English, one document a line.
#
# Takes the text between the page's two navigation bars; drops program listings and index marks;
# every block element ends a paragraph. A paragraph stays when it reads like a sentence: it ends in
# punctuation and has at least 60 bytes, which headings, table cells and menu entries have not.
# Paragraphs are joined to documents of about DOC bytes (default 3000); a page ends a document.

BEGIN {
    if (!DOC)
        DOC = 3000
    split("lt < gt > quot \" apos ' nbsp \302\240 mdash — ndash – hellip … " \
          "rsquo ’ lsquo ‘ rdquo ” ldquo “ " \
          "eacute é egrave è agrave à ccedil ç copy © trade ™ reg ®", t, " ")
    for (i = 1; i in t; i += 2)
        entity[t[i]] = t[i + 1]
}

# UTF-8 of a code point, for &#8217; and &#x2019;.
function utf8(c) {
    if (c < 128)
        return sprintf("%c", c)
    if (c < 2048)
        return sprintf("%c%c", 192 + int(c / 64), 128 + c % 64)
    return sprintf("%c%c%c", 224 + int(c / 4096), 128 + int(c / 64) % 64, 128 + c % 64)
}

function hex(s,    i, v) {
    v = 0
    for (i = 1; i <= length(s); i++)
        v = 16 * v + index("123456789abcdef", tolower(substr(s, i, 1)))
    return v
}

# Each entity is looked at once, from the left, so that &amp;lt; becomes &lt; and not <.
function decode(s,    name, out) {
    out = ""
    while (match(s, /&#?[A-Za-z0-9]+;/)) {
        name = substr(s, RSTART + 1, RLENGTH - 2)
        out = out substr(s, 1, RSTART - 1)
        s = substr(s, RSTART + RLENGTH)
        if (name == "amp")
            out = out "&"
        else if (name in entity)
            out = out entity[name]
        else if (name ~ /^#[xX]/)
            out = out utf8(hex(substr(name, 3)))
        else if (name ~ /^#[0-9]/)
            out = out utf8(substr(name, 2) + 0)
    }
    return out s
}

function end_document() {
    if (document != "")
        print document
    document = ""
}

function without_listings(s,    out, end) {
    out = ""
    while (match(s, /<pre[ >]/)) {
        out = out substr(s, 1, RSTART - 1) "<p>"
        end = index(s, "</pre>")
        s = end ? substr(s, end + 6) : ""
    }
    return out s
}

function end_page(    n, i, block, s) {
    sub(/^.*<ul class="docnav top">/, "", page)
    sub(/<ul class="docnav">.*$/, "", page)
    page = without_listings(page)
    n = split(page, block, /<\/?(div|p|li|ul|ol|h[1-6]|table|tr|td|th|dt|dd|dl)([ \n\t][^>]*)?>/)
    for (i = 1; i <= n; i++) {
        s = block[i]
        gsub(/<[^>]*>/, "", s)
        s = decode(s)
        gsub(/\302\240/, " ", s)
        gsub(/[ \t\n\r]+/, " ", s)
        gsub(/^ | $/, "", s)
        if (length(s) < 60 || s !~ /([.!?:]|[.!?]\)|[.!?]”)$/)
            continue
        document = document == "" ? s : document " " s
        if (length(document) >= DOC)
            end_document()
    }
    end_document()
    page = ""
}

FNR == 1 {
    end_page()
}

{
    page = page $0 "\n"
}

END {
    end_page()
}
