# gcide.awk - the dictionary of the Debian package dict-gcide as plain English, one headword a line.
#
# Input: the text of gcide.dict.dz (dictd's format; ASCII). An entry begins with its headword in the
# first column; the head may go on over indented lines; below it are paragraphs, indented, separated
# by empty lines. Output: "Headword. Definitions, notes and quotations." with the head's
# pronunciation, etymology and part of speech, all labels, sources and cross reference marks taken
# out. Entries of one headword that follow each other make one line; a line below MIN bytes (default
# 200) is left out.

BEGIN {
    if (!MIN)
        MIN = 200
    # Letters that the source spells in brackets. Marks of pronunciation ([=a], [i^]) are not in
    # this table: there the bare letter is what an English text has.
    split("'a á 'e é 'i í 'o ó 'u ú 'E É `a à `e è `o ò ^a â ^e ê ^i î ^o ô ^u û " \
          "\"a ä \"e ë \"i ï \"o ö \"u ü aum ä oum ö uum ü ~n ñ ,c ç ae æ AE Æ oe œ OE Œ " \
          "deg ° imac i eth th thorn th pounds £ sect § frac12 ½ frac14 ¼ frac34 ¾ times × " \
          "alpha α beta β gamma γ delta δ pi π", t, " ")
    for (i = 1; i in t; i += 2)
        letter[t[i]] = t[i + 1]
}

# The opening bracket that has no closing one yet counts up, the other way round down.
function balance(s,    copy) {
    copy = s
    return gsub(/[[(]/, "", copy) - gsub(/[])]/, "", s)
}

# Replace bracketed letters by letters, innermost first, and then drop every bracket that is left
# except a plain word inside a quotation, which an editor added and the sentence needs.
function unbracket(s, quote,    before, inside, after, plain) {
    while (match(s, /\[[^][]*\]/)) {
        before = substr(s, 1, RSTART - 1)
        inside = substr(s, RSTART + 1, RLENGTH - 2)
        after = substr(s, RSTART + RLENGTH)
        plain = inside
        gsub(/[-=~.,'`"^*]/, "", plain)
        if (inside in letter)
            inside = letter[inside]
        else if (inside != plain && plain ~ /^[A-Za-z][A-Za-z]?[A-Za-z]?$/ &&
                 inside !~ /[A-Za-z]\.$/)
            inside = plain
        else if (!quote || inside !~ /^[A-Za-z]?[a-z']+$/ || inside ~ /^(wn|root|add)/) {
            inside = ""
            sub(/ +$/, "", before)
        }
        s = before inside after
    }
    return s
}

# One paragraph, lines joined, to clean text; empty when nothing worth reading is left.
function clean(s, quote,    i) {
    sub(/ *--[A-Z0-9][^-]*$/, "", s)       # the author of a quotation
    s = unbracket(s, quote)
    sub(/ *--[A-Z0-9][^-]*$/, "", s)       # again: a label may have followed it
    if (s ~ /^ *(Syn|Ant|Usage|Cf\.|RELATED|Note: *\[|See (also )?\{[^}]*\}[.,]?$)/)
        return ""
    sub(/^ *Note: */, "", s)
    # Numbers, labels and parts of speech in front: 1. (Zool.), (a), (Eccl. Hist.), n. pl.
    while (sub(/^ *[0-9]+\. */, "", s) || sub(/^[ ,;]*\([-A-Za-z][^()]*\)[.:,]? */, "", s) ||
           sub(/^[ ,;]*(pl|Pl|fig|Fig|n|a|adv|v\. [ti]|v|p\. [ap]|prop)\.[,;:]? +/, "", s))
        ;
    gsub(/ *\([A-Z][^() .]*\.( ?(& )?[A-Z][^() .]*\.)*\)/, "", s)
    gsub(/\} \([A-Z][^()]*\.?\)/, "}", s)  # the same behind a phrase
    gsub(/ *\([a-z]\) */, " ", s)          # senses inside a paragraph
    # a derived word at the end: "-- Roguishly, adv."
    sub(/ -- *(\{[^}]*\}|[A-Z][a-z'-]*)?,? *(n|a|adv|v|v\. [ti]|p\. p|prep|conj)\..*$/, "", s)
    sub(/, (n|a|adv|v|v\. [ti]|prep)\.$/, ".", s)         # "See Clack, n."
    gsub(/, (n|a|adv|v|v\. [ti]|prep)\.,? /, ". ", s)
    gsub(/[{}]/, "", s)
    gsub(/; ?-- ?/, "; ", s)
    gsub(/, -- ?/, ", ", s)
    gsub(/ -- /, " — ", s)
    gsub(/``|''/, "\"", s)
    gsub(/[ \t]+/, " ", s)
    gsub(/ ,/, ",", s)
    gsub(/ \./, ".", s)
    gsub(/ ;/, ";", s)
    gsub(/,,+/, ",", s)
    gsub(/;;+/, ";", s)
    gsub(/^ | $/, "", s)
    sub(/[,;:]$/, ".", s)
    # A leftover of markup, an unknown letter, a bare reference or a fragment: not prose.
    if (s ~ /[][\\_<>|*`^]|\?[?A-Za-z]| \?|\(\)|--|==/ || length(s) < 12 || s !~ /[.!?"]$/)
        return ""
    if (s ~ /^(See|Same as|Cf\.) / && length(s) < 60)
        return ""
    return s
}

function end_paragraph(    s) {
    if (para != "" && head != "" && !foreign) {
        s = clean(para, quote)
        if (s != "") {
            s = toupper(substr(s, 1, 1)) substr(s, 2)
            if (index(text, s) == 0)
                text = text " " s
        }
    }
    para = ""
    foreign = 0
}

function end_entry() {
    if (text != "" && length(head) + 1 + length(text) >= MIN)
        print head "." text
    text = ""
}

# A paragraph's next line. The source breaks lines behind a compound's hyphen, never inside a word.
function append(line) {
    if (line ~ /[\200-\377]/)
        foreign = 1 # a byte outside ASCII, of whatever encoding: leave the paragraph out
    sub(/^ +/, "", line)
    if (para ~ /[a-z]-$/ && para !~ /--$/ && line !~ /^(and|or|to) /)
        para = para line
    else
        para = para == "" ? line : para " " line
}

/^[^ ]/ {
    end_paragraph()
    name = $0
    sub(/ *\\.*$/, "", name)
    name = unbracket(name, 0)
    if (name != head) {
        end_entry()
        head = name ~ /^[A-Za-z][A-Za-z' -]*$/ ? name : ""
    }
    in_head = 1
    open = 0
}

/^ *$/ {
    end_paragraph()
    in_head = 0
    next
}

# The head ends with the line that closes its last bracket, unless it breaks off in a list of forms.
in_head {
    line = $0
    gsub(/\\[^\\]*\\/, "", line)
    open += balance(line)
    if (open <= 0 && line !~ /([,;&]|[ (](or|and|pl\.|p\.|vb\.|imp\.|pr\.|v\.|also))$/)
        in_head = 0
    next
}

{
    if (para == "")
        quote = $0 ~ /^         /
    append($0)
}

END {
    end_paragraph()
    end_entry()
}
