"""cptbench: what does a post-training method learn, and what does it forget?"""
