"""``llm.gguf``: the language model in llama.cpp's file format."""
