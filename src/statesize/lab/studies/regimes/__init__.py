"""Which mixers use more of their state?"""
