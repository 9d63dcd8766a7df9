// The page that a server shows to people: files of web/, held in the program.
//
// Thread contract: constants.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "http/server.h"

namespace chiasm {

struct PageFile {
  std::string_view name;  // "index.html"
  std::string_view bytes;
};

// Every file of web/; made by web/CMakeLists.txt.
std::span<const PageFile> page_files();

// GET "/" and "/web/NAME". They hold nothing of anybody's and so are open: a browser has no key to show before it has a
// page to type it into. What the page asks for needs the key.
std::vector<Route> page_routes();

}  // namespace chiasm
