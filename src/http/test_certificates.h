// Certificates for tests of TLS, made on the spot: an authority and what it signs, as PEM files in a temporary folder.
//
// Thread contract: an object belongs to one thread.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "base/test_support.h"

namespace chiasm {

class TestAuthority {
 public:
  explicit TestAuthority(const std::string& name = "test authority") : key_(EVP_EC_gen("P-256")) {
    certificate_ = make(name, key_, "", "critical,CA:TRUE", nullptr, nullptr);
    write_certificate(file(), certificate_);
  }
  ~TestAuthority() {
    X509_free(certificate_);
    EVP_PKEY_free(key_);
  }
  TestAuthority(const TestAuthority&) = delete;
  TestAuthority& operator=(const TestAuthority&) = delete;

  struct Files {
    std::filesystem::path certificate, key;
  };

  std::filesystem::path file() const { return folder_.path() / "ca.pem"; }
  // `alternatives`: "DNS:localhost,IP:127.0.0.1", or empty for a client's certificate.
  Files sign(const std::string& common_name, const std::string& alternatives = "") {
    EVP_PKEY* key = EVP_EC_gen("P-256");
    X509* certificate = make(common_name, key, alternatives, "critical,CA:FALSE", certificate_, key_);
    const std::string stem = "signed" + std::to_string(++count_);
    Files files{folder_.path() / (stem + ".pem"), folder_.path() / (stem + ".key")};
    write_certificate(files.certificate, certificate);
    std::FILE* out = std::fopen(files.key.c_str(), "w");
    if (out == nullptr || PEM_write_PrivateKey(out, key, nullptr, nullptr, 0, nullptr, nullptr) != 1) std::abort();
    std::fclose(out);
    X509_free(certificate);
    EVP_PKEY_free(key);
    return files;
  }

 private:
  static void add_extension(X509* certificate, X509* issuer, int nid, const std::string& value) {
    if (value.empty()) return;
    X509V3_CTX context;
    X509V3_set_ctx_nodb(&context);
    X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
    X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str());
    if (extension == nullptr) std::abort();
    X509_add_ext(certificate, extension, -1);
    X509_EXTENSION_free(extension);
  }

  static X509* make(const std::string& name, EVP_PKEY* key, const std::string& alternatives, const std::string& basic,
                    X509* issuer, EVP_PKEY* issuer_key) {
    static long serial = 1;
    X509* certificate = X509_new();
    X509_set_version(certificate, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate), ++serial);
    X509_gmtime_adj(X509_getm_notBefore(certificate), -3600);
    X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
    X509_set_pubkey(certificate, key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate), "CN", MBSTRING_UTF8,
                               reinterpret_cast<const unsigned char*>(name.data()), static_cast<int>(name.size()), -1,
                               0);
    if (issuer == nullptr) issuer = certificate;
    X509_set_issuer_name(certificate, X509_get_subject_name(issuer));
    add_extension(certificate, issuer, NID_basic_constraints, basic);
    add_extension(certificate, issuer, NID_subject_key_identifier, "hash");
    add_extension(certificate, issuer, NID_subject_alt_name, alternatives);
    if (X509_sign(certificate, issuer_key != nullptr ? issuer_key : key, EVP_sha256()) == 0) std::abort();
    return certificate;
  }

  static void write_certificate(const std::filesystem::path& file, X509* certificate) {
    std::FILE* out = std::fopen(file.c_str(), "w");
    if (out == nullptr || PEM_write_X509(out, certificate) != 1) std::abort();
    std::fclose(out);
  }

  TemporaryFolder folder_;
  EVP_PKEY* key_;
  X509* certificate_ = nullptr;
  int count_ = 0;
};

}  // namespace chiasm
