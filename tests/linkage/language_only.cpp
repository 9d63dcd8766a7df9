// The program of the linkage check for the language side: its libraries are linked whole, so it needs to call nothing.
int main() { return 0; }
