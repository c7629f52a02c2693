"""The peer of bench/README.md: the challenge's baseline model in PyTorch on the CPU, fp32.

    torch_peer.py train  LAYERS DIM HEADS KV HIDDEN VOCAB T BATCH REPS THREADS [compile]
    torch_peer.py slide  LAYERS DIM HEADS KV HIDDEN VOCAB T STRIDE WINDOWS THREADS BATCH [compile]

`train` times whole optimiser steps (forward, backward, Muon on matrices, fused Adam on the rest);
`slide` times scoring the last STRIDE positions of each window the way the records' loop does it: the
whole window through the model, logits at every position, the loss of the scored ones kept.
Prints one line: seconds per step or per window, best and median.
"""
import math
import sys
import time

import torch
import torch.nn.functional as F

mode = sys.argv[1]
nums = [int(a) for a in sys.argv[2:] if a != "compile"]
use_compile = "compile" in sys.argv


class Block(torch.nn.Module):
    def __init__(self, dim, heads, kv, hidden):
        super().__init__()
        self.heads, self.kv, self.hd = heads, kv, dim // heads
        lin = lambda i, o: torch.nn.Linear(i, o, bias=False)
        self.c_q, self.c_k, self.c_v = lin(dim, dim), lin(dim, kv * self.hd), lin(dim, kv * self.hd)
        self.proj, self.fc, self.down = lin(dim, dim), lin(dim, hidden), lin(hidden, dim)
        self.q_gain = torch.nn.Parameter(torch.full((heads,), 1.5))
        self.attn_scale = torch.nn.Parameter(torch.ones(dim))
        self.mlp_scale = torch.nn.Parameter(torch.ones(dim))
        self.mix = torch.nn.Parameter(torch.stack((torch.ones(dim), torch.zeros(dim))))

    def rope(self, x, cos, sin):
        a, b = x.chunk(2, -1)
        return torch.cat((a * cos + b * sin, b * cos - a * sin), -1)

    def forward(self, x, x0, cos, sin):
        n, t, d = x.shape
        x = self.mix[0] * x + self.mix[1] * x0
        h = F.rms_norm(x, (d,))
        q = self.c_q(h).view(n, t, self.heads, self.hd).transpose(1, 2)
        k = self.c_k(h).view(n, t, self.kv, self.hd).transpose(1, 2)
        v = self.c_v(h).view(n, t, self.kv, self.hd).transpose(1, 2)
        q = self.rope(F.rms_norm(q, (self.hd,)), cos, sin) * self.q_gain[None, :, None, None]
        k = self.rope(F.rms_norm(k, (self.hd,)), cos, sin)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=self.kv != self.heads)
        x = x + self.attn_scale * self.proj(y.transpose(1, 2).reshape(n, t, d))
        return x + self.mlp_scale * self.down(torch.relu(self.fc(F.rms_norm(x, (d,)))).square())


class Model(torch.nn.Module):
    def __init__(self, layers, dim, heads, kv, hidden, vocab, t):
        super().__init__()
        self.emb = torch.nn.Embedding(vocab, dim)
        torch.nn.init.normal_(self.emb.weight, std=0.005)
        self.blocks = torch.nn.ModuleList(Block(dim, heads, kv, hidden) for _ in range(layers))
        self.skip = torch.nn.Parameter(torch.ones(layers // 2, dim))
        hd = dim // heads
        ang = torch.outer(torch.arange(t).float(), 1e4 ** (-torch.arange(0, hd, 2).float() / hd))
        self.register_buffer("cos", ang.cos())
        self.register_buffer("sin", ang.sin())

    def forward(self, ids, target, reduction):
        x = x0 = F.rms_norm(self.emb(ids), (self.emb.embedding_dim,))
        half, stack = len(self.blocks) // 2, []
        for i, b in enumerate(self.blocks):
            if i >= half and stack:
                x = x + self.skip[i - half] * stack.pop()
            x = b(x, x0, self.cos, self.sin)
            if i < half:
                stack.append(x)
        z = F.linear(F.rms_norm(x, (x.size(-1),)), self.emb.weight)
        logits = 30 * torch.tanh(z / 30)
        return F.cross_entropy(logits.view(-1, logits.size(-1)), target.reshape(-1), reduction=reduction)


def muon_step(ps, bufs, lr=0.02, mom=0.95):
    for p, buf in zip(ps, bufs):
        g = p.grad
        buf.mul_(mom).add_(g)
        x = g.add(buf, alpha=mom)
        x = x / (x.norm() + 1e-7)
        tall = x.size(0) > x.size(1)
        if tall:
            x = x.T
        for _ in range(5):
            a = x @ x.T
            x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
        if tall:
            x = x.T
        p.data.add_(x, alpha=-lr * max(1, p.size(0) / p.size(1)) ** 0.5)


def report(times, unit):
    times.sort()
    print(f"torch {torch.__version__} {'compile' if use_compile else 'eager'} {mode}: "
          f"best {times[0]:.6f} median {times[len(times) // 2]:.6f} s per {unit}")


layers, dim, heads, kv, hidden, vocab, t = nums[:7]
torch.manual_seed(0)
if mode == "train":
    batch, reps, threads = nums[7:10]
    torch.set_num_threads(threads)
    m = Model(layers, dim, heads, kv, hidden, vocab, t)
    mats = [p for n, p in m.named_parameters() if p.ndim == 2 and n.startswith("blocks") and "mix" not in n]
    ids = {id(p) for p in mats}
    adam = torch.optim.Adam([p for p in m.parameters() if id(p) not in ids], lr=0.01, fused=True)
    bufs = [torch.zeros_like(p) for p in mats]
    f = torch.compile(m) if use_compile else m
    times = []
    for i in range(reps + 2):
        x = torch.randint(vocab, (batch, t + 1))
        s = time.perf_counter()
        loss = f(x[:, :-1], x[:, 1:], "mean")
        loss.backward()
        muon_step(mats, bufs)
        adam.step()
        m.zero_grad(set_to_none=True)
        if i >= 2:
            times.append(time.perf_counter() - s)
    report(times, "step")
else:
    stride, windows, threads, batch = nums[7:11]
    torch.set_num_threads(threads)
    m = Model(layers, dim, heads, kv, hidden, vocab, t).eval()
    f = torch.compile(m) if use_compile else m
    stream = torch.randint(vocab, (t + stride * (windows + batch) + 1,))
    times, total = [], 0.0
    with torch.inference_mode():
        for i in range(0, windows, batch):
            x = torch.stack([stream[j * stride:j * stride + t] for j in range(i, i + batch)])
            y = torch.stack([stream[j * stride + 1:j * stride + t + 1] for j in range(i, i + batch)])
            s = time.perf_counter()
            nll = f(x, y, "none").view(batch, t)[:, -stride:]
            total += nll.to(torch.float64).sum().item()
            times.append((time.perf_counter() - s) / batch)
    report(times[1:] if len(times) > 1 else times, "window")
    assert math.isfinite(total)
