"""The Hugging Face hub: names of repositories, fetching files from them, what can go wrong."""
