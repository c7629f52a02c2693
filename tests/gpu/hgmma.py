#!/usr/bin/env python3
"""hgmma.py OBJECT... - is the machine code of the wgmma kernels what the source says?

Follows every path through each kernel for sm_90a (cuobjdump -sass) and reports
  - an instruction that touches the result of a product under way, or writes its left operand;
  - a left operand whose registers different instructions have written, depending on the path: ptxas 12.9
    and 13.0 give away registers that a loop still needs where a branch stands between products (attn90_bwd.cu).
Exits with 1 if it found something, with 4 without cuobjdump or without such a kernel.
"""
import re
import subprocess
import sys

BESIDE = re.compile(r'STG|STS|ST\b|LDGSTS|BRA|EXIT|BAR|[UFI]*SETP|PLOP3|R2UR|RET|CALL|BSSY|BSYNC|WARP|DEPBAR|MEMBAR|'
                    r'FENCE|VOTE|NOP|LDGDEPBAR|RED|ATOM')  # the first operand is no destination register


class Instruction:
    """Of one line: opcode, operands, and the registers it reads and writes."""

    def __init__(self, address, text):
        self.address, self.text = address, text
        self.guard, self.op, rest = re.match(r'(@!?U?P\w+ )?(\S+)\s*(.*)$', text).groups()
        self.operands = [o.strip() for o in rest.split(',')] if rest else []
        self.writes, self.reads = set(), set()
        self.product = self.op.startswith('HGMMA')
        if self.product:
            d, a = (re.match(r'R(\d+)', o) for o in self.operands[:2])
            self.d, self.a = int(d[1]), int(a[1]) if a else None
            columns = int(re.search(r'64x(\d+)x16', self.op)[1])
            self.end = self.d + columns // 2
            self.writes = set(range(self.d, self.end))
            return
        for i, operand in enumerate(self.operands):
            for m in re.finditer(r'(?<![A-Z])R(\d+)((?:\.\w+)*)', operand):
                written = i == 0 and not BESIDE.match(self.op) and '[' not in operand
                regs = range(int(m[1]), int(m[1]) + self.width(i, written, m[2], operand))
                (self.writes if written else self.reads).update(regs)

    def width(self, i, written, suffix, operand):
        """Registers behind one name: of loads and stores and of 64-bit arithmetic more than one."""
        data = written or self.op.startswith('ST') and '[' not in operand
        if '.64' in suffix or self.op.startswith('IMAD.WIDE') and (written or i == 3):
            return 2
        if data and ('.128' in self.op or self.op.startswith('LDSM') and self.op.endswith('.4')):
            return 4
        return 2 if data and ('.64' in self.op or self.op == 'CS2R') else 1


def kernels(path):
    """name, instructions of each kernel with products."""
    text = subprocess.run(['cuobjdump', '-sass', '-arch', 'sm_90a', path], capture_output=True, text=True).stdout
    for part in text.split('Function : ')[1:]:
        found = re.findall(r'^\s+/\*([0-9a-f]{4,})\*/\s+(.*?)\s*;', part, re.M)
        code = [Instruction(int(a, 16), t) for a, t in found]
        if any(i.product for i in code):
            yield part.split()[0], code


def followers(code):
    """Of each instruction the places of those that may come next."""
    place = {i.address: n for n, i in enumerate(code)}
    out = []
    for n, i in enumerate(code):
        after = [n + 1] if n + 1 < len(code) else []
        if i.op == 'EXIT' or i.op.startswith('RET'):
            after = after if i.guard else []
        elif i.op == 'BRA':
            to = [place[int(o, 16)] for o in i.operands if o.startswith('0x') and int(o, 16) in place]
            after = to + (after if i.guard or len(i.operands) > 1 else [])
        out.append(after)
    return out


def under_way(code, after):
    """What is wrong with products that are not waited for, on any path."""
    wrong, seen, work = {}, set(), [(0, (), ())]
    while work:
        state = work.pop()
        if state in seen:
            continue
        seen.add(state)
        n, groups, group = state
        i = code[n]
        if i.product:
            group += ((i.d, i.end, i.a),)
            if 'gsb0' in i.text:
                groups, group = groups + (group,), ()
        elif i.op.startswith('WARPGROUP.DEPBAR'):
            left = int(i.operands[-1], 16)
            groups = groups[-left:] if left else ()
        else:
            for d, end, a in (p for g in groups + (group,) for p in g):
                if (i.reads | i.writes) & set(range(d, end)):
                    wrong[n] = 'touches the result R%d of a product under way' % d
                if a is not None and i.writes & set(range(a, a + 4)):
                    wrong[n] = 'writes the left operand R%d of a product under way' % a
        if i.op == 'EXIT' and groups and not i.guard:
            wrong[n] = 'products are under way'
        work += [(m, groups, group) for m in after[n]]
    return wrong


def origins(code, after):
    """Left operands that different instructions have written."""
    wrong, before = {}, [[] for _ in code]
    for n, to in enumerate(after):
        for m in to:
            before[m].append(n)
    for n, i in enumerate(code):
        for r in range(i.a, i.a + 4) if i.product and i.a is not None else ():
            seen, work, writers = set(), list(before[n]), set()
            while work:
                m = work.pop()
                if m in seen:
                    continue
                seen.add(m)
                if r in code[m].writes:
                    writers.add(m)
                    if not code[m].guard:
                        continue
                work += before[m]
            if len(writers) != 1:
                wrong[n] = 'R%d comes from: %s' % (r, '; '.join('%x %s' % (code[m].address, code[m].text)
                                                               for m in sorted(writers)))
    return wrong


def main():
    count = bad = 0
    try:
        for path in sys.argv[1:]:
            for name, code in kernels(path):
                count += 1
                after = followers(code)
                for n, why in sorted({**under_way(code, after), **origins(code, after)}.items()):
                    bad += 1
                    print('%s: %x %s: %s' % (name, code[n].address, code[n].text, why))
    except FileNotFoundError:
        print('cuobjdump is not here')
        return 4
    print('%d kernels, %d faults' % (count, bad))
    return 1 if bad else 0 if count else 4


sys.exit(main())
