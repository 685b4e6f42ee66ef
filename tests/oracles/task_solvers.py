"""Solvers of the synthetic tasks, token by token from the input alone: position of each question → its answer."""

from statesize.lab.tasks import MQAR, Compression, Rebinding, SelectiveCopying


def solved(task, tokens: list[int]) -> dict[int, int]:
    """The answers of the solver of a task."""
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
