"""What a person sees and keeps while a run goes on: the terminal, numbers, words of warning, films."""
