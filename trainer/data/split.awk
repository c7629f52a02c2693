# split.awk - put documents in the order in which they are tokenised.
#
#   TOTAL  bytes of all documents
#   HELD   bytes to hold out
#   SEED   start of the generator, 1..2147483646
#
# Input: documents, one a line. Output: "K NUMBER<tab>document"; sorted by bytes, these lines begin
# with the held-out documents (K 0), then the training documents (K 1), both shuffled. A document is
# held out when the held-out bytes are behind their share of the bytes before it, so that held-out
# documents are spread evenly over the input and long ones are as likely as short ones.
# The generator is Lehmer's with the multiplier 16807 (Park and Miller, 1988): its products stay
# below 2^53, so every awk computes the same numbers, and no number comes twice.

BEGIN {
    random = SEED ? SEED : 1
}

{
    held_out = held * TOTAL < seen * HELD
    seen += length($0)
    if (held_out)
        held += length($0)
    random = random * 16807 % 2147483647
    printf "%d %010d\t%s\n", held_out ? 0 : 1, random, $0
}
