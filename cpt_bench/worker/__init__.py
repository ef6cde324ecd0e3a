"""Processes that do the heavy work: started warm, watched, ended when they must."""
