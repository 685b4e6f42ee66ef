"""Every generated task: solvers answer it, chance is what a guess gets, batches repeat, bad numbers are refused."""

import dataclasses
import itertools
import pickle
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from statesize.lab.tasks import IGNORED, MQAR, Compression, Rebinding, SelectiveCopying, build_task
from statesize.lab.tasks.base import distinct
from statesize.lab.tasks.symbols import most_frequent_share

TASKS = [MQAR(), MQAR(3, 12), SelectiveCopying(), Compression(), Rebinding()]
every_task = pytest.mark.parametrize("task", TASKS, ids=repr)


def solved(task, tokens: list[int]) -> dict[int, int]:
    """Position of each question → its answer, by a solver that reads token by token."""
    solvers = {MQAR: _recall, Rebinding: _rebinding, SelectiveCopying: _copying, Compression: _compression}
    return solvers[type(task)](tokens, task)


def _recall(tokens, task):
    """A key that is new is told its value by the next token; a key that is known is a question."""
    memory, answers = {}, {}
    for position, token in enumerate(tokens):
        if token in memory:
            answers[position] = memory[token]
        elif token < task.vocabulary_size // 2:
            memory[token] = tokens[position + 1]
    return answers


def _rebinding(tokens, task):
    """The first pairs of a document bind their keys; each further key asks; <eos> empties the memory."""
    none, eos = 2 * task.keys, 2 * task.keys + 1
    memory, answers = {}, {}
    for position, token in enumerate(tokens):
        if token == eos:
            memory = {}
        elif token < task.keys and len(memory) < task.pairs:
            memory[token] = tokens[position + 1]
        elif token < task.keys:
            answers[position] = memory.get(token, none)
    return answers


def _copying(tokens, task):
    """Symbols queue up; each marker takes the first of the queue."""
    queue, answers = [], {}
    for position, token in enumerate(tokens):
        if token < task.symbols:
            queue.append(token)
        elif token == task.symbols + 1:
            answers[position] = queue.pop(0)
    assert not queue
    return answers


def _compression(tokens, task):
    """Symbols are written down up to the compression token; then each token names a place."""
    end = tokens.index(task.symbols)
    places = {task.symbols + 1 + place: token for place, token in enumerate(tokens[:end])}
    return {position: places.pop(token) for position, token in enumerate(tokens) if position > end}


@st.composite
def recalls(draw):
    pairs = draw(st.integers(2, 24))
    vocabulary = 2 * pairs + draw(st.integers(0, 40) | st.sampled_from([1000, 20_000]))
    return MQAR(pairs, 2 * pairs + draw(st.integers(1, 80)), vocabulary)


@st.composite
def copyings(draw):
    tokens = draw(st.integers(2, 24))
    return SelectiveCopying(tokens, length=2 * tokens + draw(st.integers(0, 800)), symbols=draw(st.integers(2, 300)))


@st.composite
def rebindings(draw):
    pairs, unbound = draw(st.integers(2, 9)), draw(st.integers(1, 9))
    return Rebinding(draw(st.integers(1, 5)), pairs, unbound, keys=pairs + unbound + draw(st.integers(0, 40)))


@pytest.mark.parametrize(
    "tasks", [recalls(), copyings(), st.builds(Compression, st.integers(2, 64), st.integers(2, 300)), rebindings()]
)
def test_a_solver_that_reads_the_tokens_answers_every_target_and_finds_no_other_question(tasks):
    @settings(max_examples=100)
    @given(task=tasks, seed=st.integers(0, 2**32))
    def check(task, seed):
        inputs, targets = task.sample(3, torch.Generator().manual_seed(seed))
        assert inputs.shape == targets.shape == (3, task.length)
        assert inputs.dtype == targets.dtype == torch.int64
        assert inputs.min() >= 0
        assert inputs.max() < task.vocabulary_size
        for tokens, wanted in zip(inputs.tolist(), targets.tolist(), strict=True):
            asked = {position: target for position, target in enumerate(wanted) if target != IGNORED}
            assert solved(task, tokens) == asked
            queries = {MQAR: task.length - 2 * task.items, Rebinding: getattr(task, "documents", 0)}
            queries[Rebinding] *= getattr(task, "queries", 0)
            assert len(asked) == queries.get(type(task), task.items)

    check()


def assert_uniform(numbers, count):
    """Each of so many numbers is as frequent, within four deviations."""
    share = torch.bincount(numbers.flatten(), minlength=count) / numbers.numel()
    assert len(share) == count
    assert (share - 1 / count).abs().max() < 4 * (1 / count / len(numbers)) ** 0.5


def test_each_task_draws_evenly_what_it_asks():
    generator = torch.Generator().manual_seed(2)
    inputs, targets = MQAR(3, length=10, vocabulary_size=9).sample(40_000, generator)
    keys, values = inputs[:, :6:2], inputs[:, 1:6:2]
    for pair in range(3):
        assert_uniform(keys[:, pair] * 5 + values[:, pair] - 4, 20)
    assert_uniform((keys == inputs[:, 6:7]).int().argmax(1), 3)
    # Each run of queries repeats every pair once.
    assert (inputs[:, 6:9].sort(-1).values == keys.sort(-1).values).all()
    inputs, targets = SelectiveCopying(2, length=6, symbols=3).sample(40_000, generator)
    places = (inputs[:, :4] < 3).int() @ torch.tensor([1, 2, 4, 8], dtype=torch.int32)
    choices = [2**first + 2**second for first, second in itertools.combinations(range(4), 2)]
    assert_uniform(torch.tensor([choices.index(place) for place in places.tolist()]), 6)
    assert_uniform(targets[:, 4] * 3 + targets[:, 5], 9)
    few = Rebinding(documents=1, pairs=2, unbound=1, keys=3)
    inputs, targets = few.sample(30_000, generator)
    queries = inputs[:, 4:-1:2]
    assert queries.sort(1).values.equal(torch.arange(3).expand_as(queries))
    assert_uniform((targets[:, 4:-1:2] == few.none).int().argmax(1), 3)
    assert_uniform(queries[:, 0], 3)


@pytest.mark.parametrize(
    "task",
    [*TASKS, SelectiveCopying(3, 9, symbols=2), Compression(4, 3), Rebinding(3, pairs=2, unbound=3, keys=20)],
    ids=repr,
)
def test_chance_is_the_accuracy_of_the_best_answer_to_all_questions(task):
    samples = 5_000
    _, targets = task.sample(samples, torch.Generator().manual_seed(1))
    rows = targets.view(-1, getattr(task, "document_length", task.length))
    answers = rows[rows != IGNORED].view(len(rows), -1)
    if isinstance(task, MQAR):
        # Later queries come again: the one that knows nothing answers any of the values.
        answers = answers[:, : answers.shape[1] // task.pairs * task.pairs or task.pairs]
    best = (answers.mode(1, keepdim=True).values == answers).double().mean()
    assert float(best) == pytest.approx(task.chance, abs=4 * 0.5 / samples**0.5)


@pytest.mark.parametrize(("draws", "symbols"), [(1, 3), (2, 4), (3, 2), (5, 3), (7, 4), (4, 1)])
def test_the_share_of_the_most_frequent_symbol_is_its_mean_over_all_sequences(draws, symbols):
    largest = [max(Counter(word).values()) for word in itertools.product(range(symbols), repeat=draws)]
    assert most_frequent_share(draws, symbols) == pytest.approx(sum(largest) / draws / len(largest), abs=1e-10)


@every_task
def test_batches_depend_on_the_generator_alone(task):
    state = torch.get_rng_state()
    first = task.sample(4, torch.Generator().manual_seed(7))
    generator = torch.Generator().manual_seed(7)
    again, later = (dataclasses.replace(task).sample(4, generator) for _ in range(2))
    assert torch.get_rng_state().equal(state)
    assert all(one.equal(two) for one, two in zip(first, again, strict=True))
    assert not first[0].equal(later[0])
    # Tasks of equal numbers are equal and survive pickling and their settings.
    assert pickle.loads(pickle.dumps(task)) == task == build_task(task.settings())  # noqa: S301
    assert hash(dataclasses.replace(task)) == hash(task)


@every_task
def test_held_out_set_is_fixed_for_every_batch_size_and_drawn_from_its_own_seed(task):
    small = dataclasses.replace(task, held_out_sequences=10)
    four, ten, other = (
        [torch.cat(batch, 1) for batch in one.held_out(size)]
        for one, size in ((small, 4), (small, 10), (dataclasses.replace(small, held_out_seed=1), 10))
    )
    assert [len(batch) for batch in four] == [4, 4, 2]
    assert torch.cat(four).equal(ten[0])
    assert sum(len(inputs) for inputs, _ in task.held_out(64)) == 256
    assert not ten[0].equal(other[0])
    trained_on = task.sample(10, torch.Generator().manual_seed(0))[0]
    assert not (ten[0][:, None, : task.length] == trained_on).all(-1).any()


# Three of five go by sorting, two of five by rejection.
@pytest.mark.parametrize(("count", "draws"), [(5, 3), (5, 2)])
def test_every_ordered_choice_is_as_likely(count, draws):
    numbers = distinct(count, draws, 60_000, torch.Generator().manual_seed(1))
    assert all(len(set(row)) == draws for row in numbers[:500].tolist())
    place = {choice: number for number, choice in enumerate(itertools.permutations(range(count), draws))}
    assert_uniform(torch.tensor([place[tuple(row)] for row in numbers.tolist()]), len(place))
