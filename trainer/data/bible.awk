# bible.awk - the output of `bible -f gen1:1-rev22:21` as plain English, one chapter a line.
#
# Input: one verse a line, "Ge1:1 In the beginning ...". A chapter ends where the word before the
# colon changes.

{
    chapter = $1
    sub(/:.*/, "", chapter)
    verse = $0
    sub(/^[^ ]+ +/, "", verse)
    gsub(/[][{}<>]/, "", verse)
    gsub(/  +/, " ", verse)
    sub(/ $/, "", verse)
    separator = NR == 1 ? "" : chapter == last ? " " : "\n"
    printf "%s%s", separator, verse
    last = chapter
}

END {
    if (NR)
        print ""
}
