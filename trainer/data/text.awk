# text.awk - somebody's own text files as documents, one a line.
#
# Input: UTF-8 text without carriage returns, files one after the other. A document never spans two
# files. With LINES=1 every line is a document. Otherwise paragraphs (separated by empty lines) are
# joined until they have DOC bytes (default 3000); DOC=1 makes every paragraph a document. Text
# without empty lines is cut where a line ends beyond 4*DOC bytes, a longer line at a space.

BEGIN {
    if (!DOC)
        DOC = 3000
    longest = 4 * DOC < 12000 ? 12000 : 4 * DOC
}

function end_document() {
    if (document != "")
        print document
    document = ""
}

FNR == 1 {
    sub(/^\357\273\277/, "")    # byte order mark
    end_document()
}

{
    gsub(/[ \t\f\v]+/, " ")
    gsub(/^ | $/, "")
}

LINES {
    if ($0 != "")
        print
    next
}

$0 == "" {
    if (length(document) >= DOC)
        end_document()
    next
}

{
    line = $0
    start = 1
    while (length(line) - start >= longest) {
        piece = substr(line, start, longest)
        if (match(piece, / [^ ]*$/))
            piece = substr(piece, 1, RSTART)
        start += length(piece)
        sub(/ $/, "", piece)
        document = document == "" ? piece : document " " piece
        end_document()
    }
    line = substr(line, start)
    if (line != "")
        document = document == "" ? line : document " " line
    if (length(document) >= longest)
        end_document()
}

END {
    end_document()
}
