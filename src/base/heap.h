// The C library's heap. Thread contract: called once, when a program begins.
#pragma once

namespace chiasm {

// Blocks of a megabyte and more go back to the system when they are freed. Left alone, glibc keeps such blocks from the
// first one freed on, in heaps with holes: 39 MB beside the encoder's activations of one picture.
void return_large_blocks();

}  // namespace chiasm
