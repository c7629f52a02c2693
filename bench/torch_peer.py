"""The peer of bench/README.md: the same models in PyTorch, fp32 on the CPU, or as the records do it on a card.

    torch_peer.py train MODEL BATCH STEPS THREADS [MICROS] [compile] [cuda [cudnn]]
    torch_peer.py slide MODEL STRIDE WINDOWS THREADS BATCH [compile] [cuda [cudnn]]
    torch_peer.py slot  MODEL STRIDE WINDOWS THREADS BATCH [compile] [cuda [cudnn]]

With `cuda` forward and backward run under bf16 autocast with all activations in bf16, the residual stream, angles and
control vectors included, as in the records; Newton-Schulz in bf16, and MICROS batches make a step. With `cudnn` attention is
cuDNN's where it can be: on Hopper about twice as fast as PyTorch's own choice, and near the records' FlashAttention 3.

MODEL is one of MODELS below, at full size, depth recurrence active (not in training with `cuda`: as a run begins). `train` times whole optimiser steps:
forward, backward, clipping, Muon on matrices, fused AdamW on the rest, the average of the weights. `slide`
times scoring the last STRIDE positions of each window the way the records' loop does it: the whole window
through the model, logits at every position, the loss of the scored ones kept. `slot` is the loop of PR #1263
as published: hidden states once, then 16 AdamW steps on a shift and a logit bias per window, with the logits
of all positions and autograd, the loss masked to the scored positions.

With `compile` everything that takes time is compiled. Prints one line: seconds per step or per window, best
and median.
"""
import math
import sys
import time
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

BASE = dict(layers=9, dim=512, heads=8, kv=4, hidden=1024, vocab=1024, t=1024, rope=64, slope=0.0, eps=None,
            ln_scale=False, xsa=False, ve=(), bigram=0, smear=False, gates=False, recur=(), lanes=None,
            row_norm=False, clip=0.0, ema=0.0, wd=(0.0, 0.0))
RECORD = dict(BASE, layers=11, t=2048, rope=16, slope=0.5, ln_scale=True, xsa=True, ve=(9, 10), clip=0.3, ema=0.997)
MODELS = {
    "baseline": BASE,
    "pr1296": dict(RECORD, hidden=2048, vocab=4096, gates=True, recur=(4, 5), lanes=7, row_norm=True, wd=(0.09, 0.09)),
    "pr1263": dict(RECORD, hidden=1536, bigram=2048, smear=True, eps=2.0**-7, wd=(0.04, 0.04)),
}


def linear(i, o):
    return torch.nn.Linear(i, o, bias=False)


def vector(*shape, value=1.0):
    return torch.nn.Parameter(torch.full(shape, value))


def rms_norm(x, eps):
    """In the type of x: autocast would give fp32."""
    with torch.autocast(x.device.type, enabled=False):
        return F.rms_norm(x, (x.size(-1),), eps=eps)


class Block(torch.nn.Module):
    def __init__(self, c, layer):
        super().__init__()
        self.c, self.hd, self.scale = c, c.dim // c.heads, 1 / math.sqrt(layer + 1) if c.ln_scale else 1.0
        self.c_q, self.c_k, self.c_v = linear(c.dim, c.dim), linear(c.dim, c.kv * self.hd), linear(c.dim, c.kv * self.hd)
        self.proj, self.fc, self.down = linear(c.dim, c.dim), linear(c.dim, c.hidden), linear(c.hidden, c.dim)
        self.q_gain = vector(c.heads, value=1.5)
        self.attn_scale, self.mlp_scale = vector(c.dim), vector(c.dim)
        self.mix = torch.nn.Parameter(torch.stack((torch.ones(c.dim), torch.zeros(c.dim))))

    def norm(self, x):
        return rms_norm(x, self.c.eps)

    def rope(self, x, cos, sin):
        r = self.c.rope
        a, b, rest = x[..., :r // 2], x[..., r // 2:r], x[..., r:]
        return torch.cat((a * cos + b * sin, b * cos - a * sin, rest), -1)

    def mixed(self, x, x0):
        mix = self.mix.to(x.dtype)
        return mix[0] * x + mix[1] * x0

    def attn(self, x, ve, cos, sin):
        c, (n, t, d) = self.c, x.shape
        h = self.norm(x) * self.scale
        q = self.c_q(h).view(n, t, c.heads, self.hd).transpose(1, 2)
        k = self.c_k(h).view(n, t, c.kv, self.hd).transpose(1, 2)
        v = self.c_v(h)
        v = (v if ve is None else v + ve).view(n, t, c.kv, self.hd).transpose(1, 2)
        q = self.rope(self.norm(q), cos, sin) * self.q_gain.to(q.dtype)[None, :, None, None]
        k = self.rope(self.norm(k), cos, sin)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=c.kv != c.heads).transpose(1, 2)
        if c.xsa:
            y = y.reshape(n, t, c.kv, c.heads // c.kv, self.hd)
            u = F.normalize(v.transpose(1, 2), dim=-1).to(y.dtype).unsqueeze(-2)
            y = y - (y * u).sum(-1, keepdim=True) * u
        return self.attn_scale.to(x.dtype) * self.proj(y.reshape(n, t, d))

    def mlp(self, x):
        return self.mlp_scale.to(x.dtype) * self.down(F.leaky_relu(self.fc(self.norm(x) * self.scale), self.c.slope).square())


class Model(torch.nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        order = list(range(c.layers))
        if c.recur:
            order[c.recur[-1] + 1:c.recur[-1] + 1] = c.recur
        self.order, self.half, self.rows = order, len(order) // 2, c.layers // 2
        self.emb = torch.nn.Embedding(c.vocab, c.dim)
        torch.nn.init.normal_(self.emb.weight, std=0.005)
        self.blocks = torch.nn.ModuleList(Block(c, i) for i in range(c.layers))
        self.skip = vector(self.rows, c.dim)
        if c.gates:
            self.skip_gate = vector(self.rows, c.dim, value=0.0)
        if c.lanes is not None:
            self.merge = vector(1, value=0.5)
        if c.ve:
            self.ve_emb, self.ve_proj = torch.nn.Embedding(c.vocab, 128), linear(128, c.kv * c.dim // c.heads)
            self.ve_scale, self.ve_layer = vector(1, value=0.1), vector(len(c.ve))
        if c.bigram:
            self.bi_emb, self.bi_proj, self.bi_scale = torch.nn.Embedding(c.bigram, 128), linear(128, c.dim), vector(1, value=0.05)
        if c.smear:
            self.smear = vector(c.dim, value=0.0)
        ang = torch.outer(torch.arange(c.t).float(), 1e4 ** (-torch.arange(0, c.rope, 2).float() / c.rope))
        self.register_buffer("cos", ang.cos())
        self.register_buffer("sin", ang.sin())

    def front(self, ids):
        c, e = self.c, self.emb(ids)
        e = e.bfloat16() if e.is_cuda else e
        if c.bigram:
            h = torch.full_like(ids, c.bigram - 1)
            h[:, 1:] = ((36313 * ids[:, 1:]) ^ (27191 * ids[:, :-1])) % (c.bigram - 1)
            e = e + self.bi_scale.to(e.dtype) * self.bi_proj(self.bi_emb(h))
        x = rms_norm(e, c.eps)
        if c.smear:
            g = torch.sigmoid(self.smear).to(x.dtype)
            x = (1 - g) * x + g * F.pad(x, (0, 0, 1, 0))[:, :-1]
        return x

    def skipped(self, x, s, row):
        s = self.skip[row].to(x.dtype) * s
        return torch.lerp(s, x, torch.sigmoid(self.skip_gate[row]).to(x.dtype)) if self.c.gates else x + s

    def hidden(self, ids):
        c, x = self.c, self.front(ids)
        x0, cs = x, (self.cos.to(x.dtype), self.sin.to(x.dtype))
        ve = self.ve_scale.to(x.dtype) * self.ve_proj(self.ve_emb(ids)) if c.ve else None
        of = lambda l: ve * self.ve_layer[c.ve.index(l)].to(x.dtype) if l in c.ve else None
        stack, lane = [], None
        for i, l in enumerate(self.order):
            b = self.blocks[l]
            if i >= self.half and i - self.half < self.rows and lane is None:
                x = self.skipped(x, stack.pop(), i - self.half)
            if c.lanes is not None and i >= self.half and l >= c.lanes:
                lane = x if lane is None else lane
                r = b.mixed(x, x0)
                x, lane = r + b.attn(r, of(l), *cs), lane + b.mlp(lane)
            else:
                x = b.mixed(x, x0)
                x = x + b.attn(x, of(l), *cs)
                x = x + b.mlp(x)
            if i < self.half:
                stack.append(x)
        if lane is not None:
            x = torch.lerp(lane, x, self.merge.to(x.dtype))
        return rms_norm(x, c.eps)

    def forward(self, ids, target, reduction):
        return head_loss(self.hidden(ids), self.emb.weight, 0.0, target, reduction)


def head_loss(h, w, bias, target, reduction):
    z = F.linear(h, w) + bias if isinstance(bias, torch.Tensor) else F.linear(h, w)
    logits = 30 * torch.tanh(z / 30)
    return F.cross_entropy(logits.view(-1, logits.size(-1)), target.reshape(-1), reduction=reduction)


def newton_schulz(x, row_norm):
    """x: all matrices of one shape, [n, rows, cols], as the records batch them."""
    if row_norm:
        x = x / x.norm(dim=-1, keepdim=True).clamp_min(1e-7)
    x = x.bfloat16() if x.is_cuda else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    tall = x.size(-2) > x.size(-1)
    x = x.mT if tall else x
    for _ in range(5):
        a = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(a, a, a, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return x.mT if tall else x


class Muon:
    """Batched by shape or one matrix at a time: whichever is faster here; both are measured."""

    def __init__(self, params, c, batched, ns):
        self.c, self.ns, self.groups = c, ns, []
        shapes = {}
        for p in params:
            shapes.setdefault(p.shape, []).append(p)
        for group in shapes.values():
            for ps in [group] if batched else [[p] for p in group]:
                self.groups.append((ps, [torch.zeros_like(p) for p in ps]))

    def step(self, lr=0.02, mom=0.95):
        for ps, bufs in self.groups:
            g = [p.grad for p in ps]
            torch._foreach_mul_(bufs, mom)
            torch._foreach_add_(bufs, g)
            x = self.ns(torch.stack(torch._foreach_add(g, bufs, alpha=mom)), self.c.row_norm).float()
            if self.c.wd[0]:
                torch._foreach_mul_(ps, 1 - lr * self.c.wd[0])
            torch._foreach_add_(ps, list(x.unbind()), alpha=-lr * max(1, ps[0].size(0) / ps[0].size(1)) ** 0.5)


def now():
    if cuda:
        torch.cuda.synchronize()
    return time.perf_counter()


def mixed():
    return torch.autocast("cuda", torch.bfloat16, enabled=cuda)


def train(c, batch, steps, threads, micros=1):
    m = Model(c)
    mats = [p for n, p in m.named_parameters() if p.ndim == 2 and ("blocks" in n or "proj" in n) and "mix" not in n]
    ids = {id(p) for p in mats}
    params = list(m.parameters())
    adam = torch.optim.AdamW([p for p in params if id(p) not in ids], lr=0.01, weight_decay=c.wd[1], fused=True)
    f = torch.compile(m) if use_compile else m
    ns = torch.compile(newton_schulz, dynamic=False) if use_compile else newton_schulz
    ema = [p.detach().clone() for p in params] if c.ema else None
    best = None
    for batched in (False, True):
        muon, times = Muon(mats, c, batched, ns), []
        for i in range(steps + 2):
            xs = [torch.randint(c.vocab, (batch, c.t + 1)) for _ in range(micros)]
            s = now()
            for x in xs:
                with mixed():
                    loss = f(x[:, :-1], x[:, 1:], "mean") / micros
                loss.backward()
            with torch.no_grad():
                if c.clip:
                    torch.nn.utils.clip_grad_norm_(params, c.clip)
                muon.step()
                adam.step()
                if c.ema:
                    torch._foreach_lerp_(ema, params, 1 - c.ema)
            m.zero_grad(set_to_none=True)
            if i >= 2:
                times.append(now() - s)
        if best is None or min(times) < min(best):
            best = times
    report(best, "step")


def windows_of(stream, first, count, c, stride):
    at = range(first, first + count)
    return (torch.stack([stream[j * stride:j * stride + c.t] for j in at]),
            torch.stack([stream[j * stride + 1:j * stride + c.t + 1] for j in at]))


def slide(c, stride, windows, threads, batch):
    m = Model(c).eval()
    f = torch.compile(m) if use_compile else m
    stream = torch.randint(c.vocab, (c.t + stride * (windows + 2 * batch) + 1,))
    times, total = [], 0.0
    with torch.inference_mode(), mixed():
        for i in range(0, windows + batch, batch):
            x, y = windows_of(stream, i, batch, c, stride)
            s = now()
            total += f(x, y, "none").view(batch, c.t)[:, -stride:].to(torch.float64).sum().item()
            times.append((now() - s) / batch)
    report(times[1:], "window")
    assert math.isfinite(total)


def slot(c, stride, windows, threads, batch, steps=16, lr_max=0.008, lr_min=0.0008):
    m = Model(c).eval().requires_grad_(False)
    hidden, loss_of = m.hidden, head_loss
    if use_compile:
        hidden, loss_of = torch.compile(hidden), torch.compile(head_loss)
    stream = torch.randint(c.vocab, (c.t + stride * (windows + 2 * batch) + 1,))
    mask = torch.zeros(batch, c.t)
    mask[:, -stride:] = 1
    times, total = [], 0.0
    for i in range(0, windows + batch, batch):
        x, y = windows_of(stream, i, batch, c, stride)
        s = now()
        with torch.no_grad(), mixed():
            h = hidden(x)
        delta = torch.zeros(batch, 1, c.dim, requires_grad=True)
        bias = torch.zeros(batch, 1, c.vocab, requires_grad=True)
        opt = torch.optim.AdamW([delta, bias], lr=lr_max, weight_decay=0.01, eps=1e-8)
        for k in range(steps):
            opt.param_groups[0]["lr"] = lr_min + 0.5 * (lr_max - lr_min) * (1 + math.cos(math.pi * k / steps))
            opt.zero_grad()
            with mixed():
                nll = loss_of(h + delta, m.emb.weight, bias, y, "none").view(batch, c.t)
            ((nll * mask).sum() / mask.sum()).backward()
            opt.step()
        with torch.no_grad(), mixed():
            nll = loss_of(h + delta, m.emb.weight, bias, y, "none").view(batch, c.t)
            total += nll[:, -stride:].to(torch.float64).sum().item()
        times.append((now() - s) / batch)
    report(times[1:], "window")
    assert math.isfinite(total)


def report(times, unit):
    times.sort()
    how = ("compile" if use_compile else "eager") + (" cudnn" if cudnn else "")
    print(f"torch {torch.__version__} {how} {mode} {model}: "
          f"best {times[0]:.6f} median {times[len(times) // 2]:.6f} s per {unit}")


if __name__ == "__main__":
    use_compile, cuda, cudnn = (word in sys.argv for word in ("compile", "cuda", "cudnn"))
    torch._dynamo.config.recompile_limit = 64  # Newton-Schulz has two programs for each shape of matrix
    mode, model = sys.argv[1:3]
    nums = [int(a) for a in sys.argv[3:] if a.isdigit()]
    torch.manual_seed(0)
    if cuda:
        torch.set_default_device("cuda")
        if mode == "train":
            MODELS["pr1296"]["recur"] = ()
    torch.set_num_threads(nums[2])
    attention = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    with sdpa_kernel([SDPBackend.CUDNN_ATTENTION] * cudnn + attention, set_priority=True):
        {"train": train, "slide": slide, "slot": slot}[mode](SimpleNamespace(**MODELS[model]), *nums)
