// A vector of floats as wide as an instruction set has them, without intrinsics.
//
// Everything is inlined into a function compiled for that set; no vector crosses a call.

#pragma once

#include <cstdint>
#include <cstring>

#define INLINE inline __attribute__((always_inline))
#pragma GCC diagnostic ignored "-Wpsabi"

namespace {

template <int BYTES>  // one width per instruction set: a wider one than it has is many times slower
struct Vector {
    typedef float F __attribute__((vector_size(BYTES)));
    typedef std::int32_t I __attribute__((vector_size(BYTES)));
    static constexpr std::int64_t lanes = BYTES / 4;
};

// The last vector of a row may be partial: `left` elements remain.
template <class V>
INLINE typename V::F load(const float* from, std::int64_t left) {
    typename V::F value = {};
    if (left >= V::lanes)
        std::memcpy(&value, from, sizeof value);
    else
        std::memcpy(&value, from, static_cast<std::size_t>(left) * sizeof(float));
    return value;
}

template <class V>
INLINE void store(float* to, const typename V::F& value, std::int64_t left) {
    if (left >= V::lanes)
        std::memcpy(to, &value, sizeof value);
    else
        std::memcpy(to, &value, static_cast<std::size_t>(left) * sizeof(float));
}

template <class V>
INLINE typename V::F keep(const typename V::I& mask, const typename V::F& value) {
    return (typename V::F)(mask & (typename V::I)value);
}

template <class V>
INLINE typename V::F magnitude(const typename V::F& x) {
    return (typename V::F)((typename V::I)x & 0x7fffffff);
}

// exp(x) for x <= 0, relative error below 3e-7: x = n ln2 + r, Taylor to r^6 on |r| <= ln2 / 2.
template <class V>
INLINE typename V::F exp_negative(const typename V::F& wanted) {
    using F = typename V::F;
    using I = typename V::I;
    const F least = F{} - 87.0f;
    const F x = wanted > least ? wanted : least;
    const float round = 12582912.0f;  // 1.5 * 2^23: adding it rounds to the nearest integer
    const F shifted = x * 1.44269504f + round;
    const F n = shifted - round;
    const F r = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // ln2 in two parts
    F p = r * (1.0f / 720) + (1.0f / 120);
    p = p * r + (1.0f / 24);
    p = p * r + (1.0f / 6);
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    const I exponent = (I)shifted - 0x4b400000 + 127;
    return p * (F)(exponent << 23);
}

}  // namespace
