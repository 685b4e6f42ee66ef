"""Callbacks for the training loops of other libraries; each module needs its library, and none is imported here."""
