"""A long run of everything at once, for as many minutes as wanted: does anything grow, and is anything lost?"""
