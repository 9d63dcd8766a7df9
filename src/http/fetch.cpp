#include <algorithm>

#include "http/client.h"
#include "http/resolve.h"
#include "http/text.h"

namespace chiasm {
namespace {

// Messages of this file go to clients: none names an address, nor what a server behind a firewall said.

constexpr std::size_t kMaxAttempts = 4;  // addresses of one host

bool is_listed(std::string_view host, const std::vector<std::string>& domains) {
  return std::any_of(domains.begin(), domains.end(), [&](const std::string& given) {
    const std::string domain = lower(given);
    if (!domain.starts_with('.')) return host == domain;
    return host.size() > domain.size() && host.ends_with(domain);
  });
}

bool is_redirect(int status) {
  return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

// "/a/b/../c" as "/a/c" (RFC 3986, section 5.2.4).
std::string without_dots(std::string_view path) {
  std::vector<std::string_view> segments;
  bool open = false;  // ends as a folder
  while (!path.empty()) {
    path.remove_prefix(1);  // the slash
    const std::size_t end = std::min(path.find('/'), path.size());
    const std::string_view segment = path.substr(0, end);
    path.remove_prefix(end);
    open = segment == "." || segment == "..";
    if (segment == "..") {
      if (!segments.empty()) segments.pop_back();
    } else if (segment != ".") {
      segments.push_back(segment);
    }
  }
  std::string out;
  for (const std::string_view segment : segments) out.append("/").append(segment);
  return open || out.empty() ? out + "/" : out;
}

// A Location header beside the URL that gave it (RFC 3986, section 5.2).
std::string resolved_reference(const Url& base, std::string_view reference) {
  reference = reference.substr(0, reference.find('#'));
  const std::size_t colon = reference.find(':');
  if (colon != std::string_view::npos && colon < reference.find_first_of("/?")) return std::string(reference);
  if (reference.starts_with("//")) return fmt::format("{}:{}", base.scheme, reference);
  const std::string_view path = std::string_view(base.target).substr(0, base.target.find('?'));
  if (reference.empty()) return base.origin() + base.target;
  if (reference.starts_with('?')) return fmt::format("{}{}{}", base.origin(), path, reference);
  const std::size_t query = std::min(reference.find('?'), reference.size());
  std::string target(reference.starts_with('/') ? std::string_view() : path.substr(0, path.rfind('/') + 1));
  target.append(reference.substr(0, query));
  return fmt::format("{}{}{}", base.origin(), without_dots(target), reference.substr(query));
}

Status in_own_words(const Error& error) {
  switch (error.code) {
    case Code::kDeadlineExceeded: return fail(Code::kDeadlineExceeded, "the URL was not fetched in time");
    case Code::kCancelled: return fail(Code::kCancelled, "cancelled while the URL was fetched");
    case Code::kResourceExhausted: return fail(Code::kResourceExhausted, "what the URL names is too large");
    default: return fail(Code::kUnavailable, "the URL's server cannot be reached or does not answer properly");
  }
}

class Fetch {
 public:
  Fetch(HttpClient& client, const FetchRules& rules, Deadline deadline, const CancelFlag* cancel)
      : client_(client), rules_(rules), deadline_(deadline), cancel_(cancel) {}

  Result<HttpResponse> run(std::string_view text) {
    auto parsed = Url::parse(text);
    for (int redirects = 0;; ++redirects) {
      if (!parsed && redirects > 0) return fail(Code::kInvalidArgument, "the URL leads to another that is not usable");
      ASSIGN_OR_RETURN(const Url url, parsed);
      ASSIGN_OR_RETURN(HttpResponse response, get(url));
      if (response.status == 200) return response;
      const auto location = response.headers.find("Location");
      if (!is_redirect(response.status) || !location)
        return fail(Code::kUnavailable, "the URL's server answered with status {}", response.status);
      if (redirects >= rules_.max_redirects)
        return fail(Code::kUnavailable, "the URL leads through more than {} redirects", rules_.max_redirects);
      parsed = Url::parse(resolved_reference(url, *location));
    }
  }

 private:
  Result<HttpResponse> get(const Url& url) {
    if (!is_listed(url.host, rules_.domains))
      return fail(Code::kInvalidArgument, "the URL's host is not one that may be asked");
    auto addresses = resolve_until(url.host, deadline_, cancel_);
    if (!addresses) {
      RETURN_IF_ERROR(in_own_words(addresses.error()));
    }
    for (const std::string& address : *addresses)
      if (!rules_.private_networks && !is_public_address(address))
        return fail(Code::kInvalidArgument, "the URL's host is not on the public internet");
    Status status;
    for (std::size_t i = 0; i < std::min(addresses->size(), kMaxAttempts); ++i) {
      ClientCall call;
      call.url = url;
      call.address = (*addresses)[i];
      call.headers.add("Accept", "*/*");
      call.deadline = deadline_;
      call.cancel = cancel_;
      call.max_body = rules_.max_body;
      auto response = client_.send(call);
      if (response) return response;
      status = in_own_words(response.error());
      if (status.error().code != Code::kUnavailable) break;
    }
    return tl::unexpected<Error>(status.error());
  }

  HttpClient& client_;
  const FetchRules& rules_;
  const Deadline deadline_;
  const CancelFlag* cancel_;
};

}  // namespace

Result<HttpResponse> fetch(HttpClient& client, std::string_view url, const FetchRules& rules, Deadline deadline,
                           const CancelFlag* cancel) {
  return Fetch(client, rules, deadline, cancel).run(url);
}

}  // namespace chiasm
