"""Batches with a function instead of a model, which waits until the test lets it go on."""

import asyncio
import concurrent.futures
import threading

import numpy as np
import pytest

from serving.batching import Batcher
from serving.errors import RequestError

BAD = -1


class Doubling:
    """Doubles numbers, and refuses batches with BAD; `go` lets it compute."""

    def __init__(self):
        self.batches = []
        self.go = threading.Event()

    def __call__(self, inputs):
        assert self.go.wait(10)
        x = inputs["x"]
        self.batches.append(x.shape)
        if BAD in x:
            raise RequestError(400, "a bad number")
        return {"y": 2 * x}


def play(scenario, **options):
    """Runs a scenario with a batcher; returns the shapes of the batches and the sizes that were reported."""
    compute, sizes = Doubling(), []

    async def run():
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            settings = {"max_batch": 8, "max_pixels": 1000, "wait": 0.05, "on_batch": sizes.append}
            batcher = Batcher(pool, **{**settings, **options})
            await asyncio.wait_for(scenario(batcher, compute), 10)

    # In a thread of its own, because Playwright keeps an event loop running in the thread of the tests once a
    # browser has been started there.
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, run()).result()
    return compute.batches, sizes


def start(batcher, compute, *values, pixels=0, dtype=np.int64):
    return asyncio.ensure_future(batcher.run(compute, {"x": np.array(values, dtype)}, pixels))


async def answers(tasks):
    return [answer["y"].tolist() for answer in await asyncio.gather(*tasks)]


async def first_waits(batcher, compute):
    """Starts a request that is computed alone and does not end before `go`."""
    task = start(batcher, compute, 100)
    await asyncio.sleep(0.02)
    return task


def test_requests_that_wait_become_a_batch():
    async def scenario(batcher, compute):
        first = await first_waits(batcher, compute)
        others = [start(batcher, compute, n, n + 1) for n in (1, 2, 3)]
        await asyncio.sleep(0.02)
        compute.go.set()
        assert await answers([first, *others]) == [[200], [2, 4], [4, 6], [6, 8]]

    assert play(scenario) == ([(1,), (6,)], [1, 6])


def test_a_batch_has_a_largest_size():
    async def scenario(batcher, compute):
        first = await first_waits(batcher, compute)
        others = [start(batcher, compute, n, n, n) for n in range(4)]
        await asyncio.sleep(0.02)
        compute.go.set()
        assert await answers([first, *others]) == [[200], *([2 * n] * 3 for n in range(4))]

    assert play(scenario)[0] == [(1,), (6,), (6,)]


def test_a_batch_has_a_largest_number_of_pixels():
    async def scenario(batcher, compute):
        first = await first_waits(batcher, compute)
        others = [start(batcher, compute, n, pixels=400) for n in range(4)]
        huge = start(batcher, compute, 9, pixels=5000)
        await asyncio.sleep(0.02)
        compute.go.set()
        assert await answers([first, *others, huge]) == [[200], [0], [2], [4], [6], [18]]

    assert play(scenario)[0] == [(1,), (2,), (2,), (1,)]


def test_requests_of_other_shapes_and_types_are_other_batches():
    async def scenario(batcher, compute):
        first = await first_waits(batcher, compute)
        tasks = [
            start(batcher, compute, 1),
            start(batcher, compute, [1, 2]),
            start(batcher, compute, 3),
            start(batcher, compute, 4, dtype=np.int32),
        ]
        await asyncio.sleep(0.02)
        compute.go.set()
        assert await answers([first, *tasks]) == [[200], [2], [[2, 4]], [6], [8]]

    assert play(scenario)[0] == [(1,), (2,), (1, 2), (1,)]


def test_a_bad_request_does_not_spoil_the_others():
    async def scenario(batcher, compute):
        first = await first_waits(batcher, compute)
        good, bad, last = start(batcher, compute, 1), start(batcher, compute, BAD), start(batcher, compute, 2)
        await asyncio.sleep(0.02)
        compute.go.set()
        assert await answers([first, good, last]) == [[200], [2], [4]]
        with pytest.raises(RequestError, match="a bad number"):
            await bad

    batches, sizes = play(scenario)
    assert batches == [(1,), (3,), (1,), (1,), (1,)]
    assert sizes == [1, 1, 1]


def test_a_failure_is_told_to_all_and_the_next_request_is_answered():
    async def scenario(batcher, compute):
        def fail(inputs):
            raise MemoryError("too little")

        with pytest.raises(MemoryError):
            await start(batcher, fail, 1)
        compute.go.set()
        assert await answers([start(batcher, compute, 1)]) == [[2]]

    play(scenario)


def test_a_client_that_gives_up_does_not_disturb_the_others():
    async def scenario(batcher, compute):
        first = await first_waits(batcher, compute)
        given_up, other = start(batcher, compute, 1), start(batcher, compute, 2)
        await asyncio.sleep(0.02)
        given_up.cancel()
        first.cancel()
        compute.go.set()
        assert await answers([other]) == [[4]]

    play(scenario)


def test_the_next_batch_waits_for_as_many_requests_as_the_last_one_had():
    async def scenario(batcher, compute):
        first = await first_waits(batcher, compute)
        others = [start(batcher, compute, n) for n in range(3)]
        await asyncio.sleep(0.02)
        compute.go.set()
        await answers([first, *others])
        early = start(batcher, compute, 1)
        await asyncio.sleep(0.01)
        late = [start(batcher, compute, n) for n in (2, 3)]
        assert await answers([early, *late]) == [[2], [4], [6]]
        # Nothing more comes: after `wait`, the request is computed alone.
        assert await answers([start(batcher, compute, 4)]) == [[8]]

    assert play(scenario)[0] == [(1,), (3,), (3,), (1,)]
