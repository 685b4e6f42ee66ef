"""Small faults planted in src, one at a time: which test finds each?"""
