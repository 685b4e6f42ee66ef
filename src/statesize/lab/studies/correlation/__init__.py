"""Does ESS tell more of accuracy than TSS?"""
