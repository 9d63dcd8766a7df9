// Whether a message names what is no client's business: a path of this machine, an address, a port.
//
// Errs on the safe side: what merely looks like one is one. Thread contract: a pure function.
#pragma once

#include <string_view>

namespace chiasm {

// True for absolute paths, paths with a dot or with two slashes, URLs, IP addresses of both kinds, HOST:PORT, ":PORT"
// and "port N". Media types ("image/png") and "1/2" are none of these.
bool holds_private_text(std::string_view text);

}  // namespace chiasm
