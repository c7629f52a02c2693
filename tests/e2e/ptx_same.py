#!/usr/bin/env python3
"""ptx_same.py BEFORE AFTER - are the kernels of two PTX texts the same but for the names of registers?

Of each operand that is read it finds the instructions that may have written it (reaching definitions), in
both texts: they must be the same ones. Independent of stub/ptx_registers.c, which looks for what must not
be written instead.
"""
import re
import sys

REGISTER = re.compile(r"%(?:own\d+_)?[a-z]{1,2}\d+\b")


def kernels(path):
    """{name: its instructions and labels}; registers of blocks in braces get names of their own."""
    with open(path) as f:
        parts = f.read().rstrip("\0").split(".visible .entry ")[1:]
    found = {}
    for part in parts:
        body = part[part.index("\n{\n") + 3 : part.rindex("}")]
        lines, own, block = [], None, 0
        for line in (x.strip() for x in re.split(r"(?<=;)|\n", body)):
            if line == "{":
                own, block = {}, block + 1
            elif line == "}":
                own = None
            elif line.startswith(".reg") and own is not None:
                name = line.rstrip(";").split()[2]
                own[name] = f"%own{block}_{name[1:]}"
            elif line and not line.startswith(".reg"):
                lines.append(re.sub(REGISTER, lambda m: (own or {}).get(m[0], m[0]), line))
        found[part[: part.index("(")]] = lines
    return found


def operands(line):
    """(written, read, whether it has a predicate)"""
    guard, text = line.split(" ", 1) if line[0] == "@" else ("", line)
    name, _, rest = text.partition(" ")
    read = re.findall(REGISTER, guard)
    if name.split(".")[0].rstrip(";") in ("st", "bra", "ret") or name.startswith("bar.sync"):
        return [], read + re.findall(REGISTER, rest), bool(guard)
    end = rest.index("}") if rest.startswith("{") else rest.find(",")
    end = end if end > 0 else len(rest)
    return re.findall(REGISTER, rest[:end]), read + re.findall(REGISTER, rest[end:]), bool(guard)


def reaching(lines):
    """Of each line, for each operand that it reads, the set (bits) of writes that may be meant."""
    label = {x[:-1]: i for i, x in enumerate(lines) if x[0] == "$"}
    plain = ([], [], False)
    of = [plain if x[0] in "$." else operands(x) for x in lines]
    writes, bit = {}, 0
    made = []
    for written, _, _ in of:
        made.append([])
        for register in written:
            made[-1].append((register, 1 << bit))
            writes[register] = writes.get(register, 0) | 1 << bit
            bit += 1
    after = []
    for i, line in enumerate(lines):
        jump = re.search(r"\bbra\b.*?(\$\w+)", line)
        stays = line[0] == "@" or not re.match(r"bra|ret", line)
        after.append(([label[jump[1]]] if jump else []) + ([i + 1] if stays and i + 1 < len(lines) else []))
    starts = sorted({0} | set(label.values()) | {i + 1 for i, x in enumerate(after) if x != [i + 1]})
    end = {a: b for a, b in zip(starts, starts[1:] + [len(lines)])}

    def walk(block, state, see):
        for i in range(block, end[block]):
            see(i, state)
            for register, write in made[i]:
                state = (state if of[i][2] else state & ~writes[register]) | write
        return state

    before = dict.fromkeys((x for x in starts if x < len(lines)), 0)
    todo = list(before)
    while todo:
        block = todo.pop(0)
        state = walk(block, before[block], lambda i, s: None)
        for target in after[end[block] - 1]:
            if before[target] | state != before[target]:
                before[target] |= state
                todo.append(target)
    seen = [None] * len(lines)

    def see(i, state):
        seen[i] = [state & writes.get(register, 0) for register in of[i][1]]

    for block in before:
        walk(block, before[block], see)
    return seen


def main():
    one, two = kernels(sys.argv[1]), kernels(sys.argv[2])
    count = 0
    if one.keys() != two.keys() or not one:
        sys.exit("other kernels")
    for name in one:
        texts = [[re.sub(REGISTER, "%", x) for x in k[name]] for k in (one, two)]
        if texts[0] != texts[1]:
            sys.exit(f"{name}: other instructions")
        for i, (a, b) in enumerate(zip(reaching(one[name]), reaching(two[name]))):
            if a != b:
                sys.exit(f"{name}: {one[name][i]} reads something else as {two[name][i]}")
            count += len(a)
    print(f"{len(one)} kernels, {count} operands")


main()
