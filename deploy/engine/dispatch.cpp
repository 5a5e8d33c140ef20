// The same code, compiled three times: base (any machine), x86-64-v3 (AVX2) and v4 (AVX-512), each
// with vectors of its own width. Every function below a wrapper is always inlined, else it would
// be compiled for the base alone. Sums have one order and nothing is fused, so all three give the
// same bits.
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "layer.hpp"

namespace snnpipe {
namespace {

#define SNNPIPE_BLOCK(NAME, TARGET, WIDTH, LANES)                                                \
  TARGET void NAME##_plain_float##LANES(const BlockTask<float>& task) {                          \
    run_block<float, WIDTH, LANES, Form::plain>(task);                                           \
  }                                                                                              \
  TARGET void NAME##_general_float##LANES(const BlockTask<float>& task) {                        \
    run_block<float, WIDTH, LANES, Form::general>(task);                                         \
  }                                                                                              \
  TARGET void NAME##_plain_integer##LANES(const BlockTask<int32_t>& task) {                      \
    run_block<int32_t, WIDTH, LANES, Form::plain>(task);                                         \
  }                                                                                              \
  TARGET void NAME##_general_integer##LANES(const BlockTask<int32_t>& task) {                    \
    run_block<int32_t, WIDTH, LANES, Form::general>(task);                                       \
  }                                                                                              \
  TARGET void NAME##_counted_integer##LANES(const BlockTask<int32_t>& task) {                    \
    run_block<int32_t, WIDTH, LANES, Form::counted>(task);                                       \
  }                                                                                              \
  constexpr BlockKernels k_##NAME##LANES = {NAME##_plain_float##LANES,                           \
                                            NAME##_general_float##LANES,                         \
                                            NAME##_plain_integer##LANES,                         \
                                            NAME##_general_integer##LANES,                       \
                                            NAME##_counted_integer##LANES};

#define SNNPIPE_KERNELS(NAME, TARGET, WIDTH)                                                     \
  SNNPIPE_BLOCK(NAME, TARGET, WIDTH, 16)                                                         \
  SNNPIPE_BLOCK(NAME, TARGET, WIDTH, 32)                                                         \
  SNNPIPE_BLOCK(NAME, TARGET, WIDTH, 64)                                                         \
  TARGET void NAME##_masks(const uint64_t* masks, std::size_t words, const Scan& scan,           \
                           uint32_t* events, uint32_t* start) {                                  \
    decode_masks(masks, words, scan, events, start);                                             \
  }                                                                                              \
  TARGET void NAME##_float_values(const float* values, const Strides& strides, const Scan& scan, \
                                  uint32_t* events, float* out, uint32_t* start) {               \
    decode_values(values, strides, scan, events, out, start);                                    \
  }                                                                                              \
  TARGET void NAME##_integer_values(const int32_t* values, const Strides& strides,               \
                                    const Scan& scan, uint32_t* events, int32_t* out,            \
                                    uint32_t* start) {                                           \
    decode_values(values, strides, scan, events, out, start);                                    \
  }                                                                                              \
  constexpr Kernels k_##NAME = {#NAME,        k_##NAME##16,        k_##NAME##32,                 \
                                k_##NAME##64, NAME##_masks,        NAME##_float_values,          \
                                NAME##_integer_values};

SNNPIPE_KERNELS(base, , 16)

#if defined(__x86_64__)
SNNPIPE_KERNELS(v3, __attribute__((target("arch=x86-64-v3"))), 32)
SNNPIPE_KERNELS(v4, __attribute__((target("arch=x86-64-v4"))), 64)

bool has_v3() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") &&
         __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("fma");
}
bool has_v4() {
  return has_v3() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl");
}
#endif

}  // namespace

const Kernels& kernels_for(const char* isa) {
  const char* set = std::getenv("SNNPIPE_ISA");
  const std::string name = *isa != '\0' ? isa : set != nullptr ? set : "";
#if defined(__x86_64__)
  if (name == "v4" || (name.empty() && has_v4())) {
    if (has_v4()) return k_v4;
  } else if (name == "v3" || (name.empty() && has_v3())) {
    if (has_v3()) return k_v3;
  }
#endif
  if (name.empty() || name == "base") return k_base;
  throw std::invalid_argument("SNNPIPE_ISA: '" + name +
                              "' is not one of base, v3, v4 or this machine lacks it");
}

}  // namespace snnpipe
