"""One rank of an all-reduce by PyTorch's gloo backend, to be measured beside ours: `lockstep bench allreduce --against torch`.

    allreduce.py RANK RANKS FILE SIZE...

FILE is a path that all ranks have in common and that does not exist yet. Rank 0 prints the median microseconds of each
size in bytes, of the rank that takes longest, as one JSON object. Each measurement starts from a barrier. Needs `pip install torch numpy`.
"""
import json
import statistics
import sys
import time

import torch
import torch.distributed

rank, ranks, file, sizes = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], [int(size) for size in sys.argv[4:]]
torch.set_num_threads(1)
torch.distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=ranks)


def measure(bytes):
    values = torch.ones(bytes // 4)
    times = []
    for repeat in range(3 + min(200, max(5, (256 << 20) // bytes))):
        torch.distributed.barrier()
        start = time.perf_counter()
        torch.distributed.all_reduce(values)
        times.append(time.perf_counter() - start)
        values.fill_(1.0)
    longest = torch.tensor(statistics.median(times[3:]) * 1e6)
    torch.distributed.all_reduce(longest, torch.distributed.ReduceOp.MAX)
    return longest.item()


found = {size: measure(size) for size in sizes}
if rank == 0:
    print(json.dumps(found), flush=True)
torch.distributed.barrier()
torch.distributed.destroy_process_group()
