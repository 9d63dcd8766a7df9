// The routes of a vision server: a picture in, its feature file out; what is kept under an id; what the server is.
//
//   POST /v1/features?min_pixels=N&max_pixels=N   the picture's bytes, or multipart/form-data with one part "image", or
//                                                 with parts "frame" in order, a video; the bounds may be fields
//   GET, HEAD, DELETE /v1/features/{id}
//   GET /v1/info
//
// Features are answered as feature files in F32, or described in JSON where Accept names application/json. The tenant
// is taken from a header: who may reach these routes is trusted to name it (a language server, kept apart from
// strangers by a key). Health, metrics and keys are front.h's. Thread contract: handlers run on any thread; the side
// must outlive the server and the server its routes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "http/server.h"
#include "roles/vision_side.h"

namespace chiasm {

struct VisionServerOptions {
  std::string version;
  std::uint64_t max_body = 128ULL << 20;  // bytes of a request, all frames of a video together
  std::size_t max_frames = 64;            // of a video
  std::string tenant_header = "X-Chiasm-Tenant";
};

class VisionServer {
 public:
  VisionServer(VisionSide& side, VisionServerOptions options);

  std::vector<Route> routes() const;

 private:
  void post_feature(Exchange& exchange) const;
  void get_feature(Exchange& exchange) const;  // HEAD too
  void delete_feature(Exchange& exchange) const;
  void get_info(Exchange& exchange) const;
  std::string tenant_of(const HttpRequest& request) const;

  VisionSide& side_;
  const VisionServerOptions options_;
};

}  // namespace chiasm
