"""The errors that statesize raises; each message says what was given, what was expected and what to do."""


class StatesizeError(Exception):
    """Base of every error that statesize raises on purpose."""


class StatesizeWarning(UserWarning):
    """A result lacks something that it was asked for."""


class InputError(StatesizeError, ValueError):
    """An argument has a wrong shape, dtype, value or combination."""


class EngineError(StatesizeError):
    """An engine was asked for something that it does not give."""


class FileError(StatesizeError):
    """A file, checkpoint or result is missing, damaged, of another version, or cannot be written."""


class ModelError(StatesizeError):
    """A model has no mixer that can be measured, or a measured mixer contradicts the model."""
