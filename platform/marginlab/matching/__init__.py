"""A trained network on new images: embeddings, nearest matches, and how often other people's images are as alike.

``impostors`` has the rates and what they do not cover; ``model`` opens a champion without running what lies in its folder;
``images`` reads files as ``prepare`` does; ``embed`` and ``match`` make the tables of the two commands.
"""
