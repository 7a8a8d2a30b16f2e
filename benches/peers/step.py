"""A training step of the built-in model in PyTorch: the peer of `lockstep bench step`.

    python step.py '{"vocab": 1024, "width": 128, "layers": 4, "heads": 4, "kv_heads": 4, "ffn": 344,
                     "length": 128, "sequences": 8, "steps": 8, "threads": 1, "compile": false}'

One process, or under torchrun as many, which then train data-parallel over gloo. Prints one line of JSON: median seconds of a
step, tokens per second of all ranks, peak resident bytes of rank 0.
"""
import json
import os
import resource
import statistics
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

WARM_UP = 3
plan = json.loads(sys.argv[1])
ranks = int(os.environ.get("WORLD_SIZE", "1"))
torch.set_num_threads(plan["threads"])
torch.manual_seed(0)
vocab, width, heads, kv_heads = plan["vocab"], plan["width"], plan["heads"], plan["kv_heads"]
length, sequences = plan["length"], plan["sequences"]
head = width // heads


class Norm(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return F.rms_norm(x, (width,), self.w, 1e-5)


def matrix(inputs, outputs):
    return nn.Linear(inputs, outputs, bias=False)


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.before, self.between = Norm(), Norm()
        self.qkv = matrix(width, (heads + 2 * kv_heads) * head)
        self.out = matrix(width, width)
        self.gate, self.up = matrix(width, plan["ffn"]), matrix(width, plan["ffn"])
        self.down = matrix(plan["ffn"], width)

    def forward(self, x, turn):
        n = x.shape[0]
        parts = self.qkv(self.before(x)).view(n, length, heads + 2 * kv_heads, head).transpose(1, 2)
        q, k, v = parts.split((heads, kv_heads, kv_heads), 1)
        y = F.scaled_dot_product_attention(turn(q), turn(k), v, is_causal=True, enable_gqa=heads != kv_heads)
        x = x + self.out(y.transpose(1, 2).reshape(n, length, width))
        z = self.between(x)
        return x + self.down(F.silu(self.gate(z)) * self.up(z))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(vocab, width)
        self.layers = nn.ModuleList(Layer() for _ in range(plan["layers"]))
        self.last = Norm()
        self.head = matrix(width, vocab)
        half = torch.arange(head // 2) / (head // 2)
        angles = torch.outer(torch.arange(length), 10000.0**-half)
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def turn(self, x):
        a, b = x.chunk(2, -1)
        return torch.cat((a * self.cos - b * self.sin, b * self.cos + a * self.sin), -1)

    def forward(self, tokens, targets):
        x = self.table(tokens)
        for layer in self.layers:
            x = layer(x, self.turn)
        return F.cross_entropy(self.head(self.last(x)).flatten(0, 1), targets.flatten())


model = Model()
if ranks > 1:
    torch.distributed.init_process_group("gloo")
    model = nn.parallel.DistributedDataParallel(model)
trained = torch.compile(model) if plan["compile"] else model
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
times = []
for _ in range(WARM_UP + plan["steps"]):
    batch = torch.randint(vocab, (sequences, length + 1))
    begin = time.perf_counter()
    loss = trained(batch[:, :-1].contiguous(), batch[:, 1:].contiguous())
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    times.append(time.perf_counter() - begin)
if int(os.environ.get("RANK", "0")) == 0:
    step = statistics.median(times[WARM_UP:])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    speed = ranks * sequences * length / step
    print(json.dumps({"step_ms": step * 1e3, "tokens_per_second": speed, "peak_bytes": peak}), flush=True)
if ranks > 1:
    torch.distributed.destroy_process_group()
