// N output channels in registers, and what is added to them: rows of weights at events, rows of
// values, bits of masks. Rows in memory are always 64 wide; of a block of fewer channels only the
// first 16 or 32 are looked at. GCC vector types of the ISA's own width W (16, 32 or 64 bytes); wider ones
// fall back to memory, plain loops stay there too, and both are several times slower.
#pragma once

#include <cstddef>
#include <cstdint>

#include "masks.hpp"
#include "plan.hpp"

#if defined(__FAST_MATH__)
#error "the engine's sums have a fixed order: build it without -ffast-math"
#endif

namespace snnpipe {

template <class T, int W, int N>
struct Lanes {
  typedef T Vector __attribute__((vector_size(W), may_alias));
  static constexpr int kWidth = W / static_cast<int>(sizeof(T));
  static constexpr int kCount = N / kWidth;
  Vector v[kCount];

  SNNPIPE_INLINE void load(const T* row) {
#pragma GCC unroll 16
    for (int j = 0; j < kCount; ++j) v[j] = reinterpret_cast<const Vector*>(row)[j];
  }
  SNNPIPE_INLINE void store(T* row) const {
#pragma GCC unroll 16
    for (int j = 0; j < kCount; ++j) reinterpret_cast<Vector*>(row)[j] = v[j];
  }
  SNNPIPE_INLINE void zero() {
#pragma GCC unroll 16
    for (int j = 0; j < kCount; ++j) v[j] = Vector{};
  }
  SNNPIPE_INLINE void add(const T* row) {
#pragma GCC unroll 16
    for (int j = 0; j < kCount; ++j) v[j] += reinterpret_cast<const Vector*>(row)[j];
  }
  SNNPIPE_INLINE void add(const Lanes& other) {
#pragma GCC unroll 16
    for (int j = 0; j < kCount; ++j) v[j] += other.v[j];
  }
  // A rounded product, then a rounded sum: -ffp-contract=off keeps them apart.
  SNNPIPE_INLINE void add_times(const T* row, T factor) {
#pragma GCC unroll 16
    for (int j = 0; j < kCount; ++j) v[j] += reinterpret_cast<const Vector*>(row)[j] * factor;
  }
  SNNPIPE_INLINE void multiply(const T* row) {
#pragma GCC unroll 16
    for (int j = 0; j < kCount; ++j) v[j] *= reinterpret_cast<const Vector*>(row)[j];
  }
  SNNPIPE_INLINE void divide(T divisor) {
#pragma GCC unroll 16
    for (int j = 0; j < kCount; ++j) v[j] /= divisor;
  }
};

// A sum as a convolution keeps it, in [-2^23, 2^23); returns how many lanes that changed.
template <int W, int N>
SNNPIPE_INLINE int64_t wrap24(Lanes<int32_t, W, N>& sum) {
  typedef typename Lanes<int32_t, W, N>::Vector Values;
  constexpr int32_t kHalf = 1 << 23;
  Values changed{};
#pragma GCC unroll 16
  for (int j = 0; j < Lanes<int32_t, W, N>::kCount; ++j) {
    const Values kept = ((sum.v[j] + kHalf) & (2 * kHalf - 1)) - kHalf;
    changed -= kept != sum.v[j];
    sum.v[j] = kept;
  }
  int64_t count = 0;
  for (int i = 0; i < Lanes<int32_t, W, N>::kWidth; ++i) count += changed[i];
  return count;
}

// What an edge makes of its finished sum; returns how many lanes wrapped.
template <int W, int N>
SNNPIPE_INLINE int64_t finish(Lanes<float, W, N>&, const Edge<float>&) {
  return 0;
}
template <int W, int N>
SNNPIPE_INLINE int64_t finish(Lanes<int32_t, W, N>& sum, const Edge<int32_t>& edge) {
  const int64_t wrapped = edge.wraps ? wrap24(sum) : 0;
#pragma GCC unroll 16
  for (int j = 0; j < Lanes<int32_t, W, N>::kCount; ++j) {
    sum.v[j] = edge.shift < 0 ? sum.v[j] >> -edge.shift : sum.v[j] * (1 << edge.shift);
  }
  return wrapped;
}

alignas(64) constexpr int32_t kBits[16] = {1,      1 << 1, 1 << 2,  1 << 3,  1 << 4,  1 << 5,
                                           1 << 6, 1 << 7, 1 << 8,  1 << 9,  1 << 10, 1 << 11,
                                           1 << 12, 1 << 13, 1 << 14, 1 << 15};

SNNPIPE_INLINE int32_t bits_of_one(float) {
  return 0x3f800000;  // 1.0f
}
SNNPIPE_INLINE int32_t bits_of_one(int32_t) { return 1; }

// Adds 1 to the lanes whose bit is set.
template <class T, int W, int N>
SNNPIPE_INLINE void add_mask(Lanes<T, W, N>& sum, uint64_t word) {
  typedef typename Lanes<int32_t, W, N>::Vector Bits;
  typedef typename Lanes<T, W, N>::Vector Values;
  const Bits lane = *reinterpret_cast<const Bits*>(kBits);
#pragma GCC unroll 16
  for (int j = 0; j < Lanes<T, W, N>::kCount; ++j) {
    const Bits some = Bits{} + static_cast<int32_t>(word >> (j * Lanes<T, W, N>::kWidth));
    const Bits ones = ((some & lane) != 0) & bits_of_one(T{});
    sum.v[j] += reinterpret_cast<const Values&>(ones);
  }
}

// What an edge reads of its source, for one tile of samples; frame = step * samples + sample.
template <class T>
struct Source {
  const uint64_t* masks = nullptr;  // spikes, or
  const T* values = nullptr;        // graded values
  Strides strides{};
  bool padded = false;  // the channels of a pixel fill whole rows of 64
  std::size_t words = 0, pixels = 0, channels = 0;
  std::size_t steps = 1;  // 1 when nothing changes from step to step
};

template <class T>
SNNPIPE_INLINE T read(const Source<T>& source, std::size_t frame, std::size_t pixel,
                      std::size_t channel) {
  if (source.masks != nullptr) {
    const std::size_t first = (frame * source.pixels + pixel) * source.words;
    return static_cast<T>((source.masks[first + channel / 64] >> (channel % 64)) & 1);
  }
  const Strides& by = source.strides;
  return source.values[frame * by.frame + pixel * by.pixel + channel * by.channel];
}

// Adds 64 channels of one source pixel, unweighted.
template <class T, int W, int N>
SNNPIPE_INLINE void add_pixel(Lanes<T, W, N>& sum, const Source<T>& source, std::size_t frame,
                              std::size_t pixel, std::size_t block) {
  if (source.masks != nullptr) {
    add_mask(sum, source.masks[(frame * source.pixels + pixel) * source.words + block]);
  } else if (source.padded) {
    const Strides& by = source.strides;
    sum.add(source.values + frame * by.frame + pixel * by.pixel + block * kLanes);
  } else {
    alignas(kAlignment) T row[kLanes] = {};
    for (std::size_t c = block * kLanes; c < source.channels && c < (block + 1) * kLanes; ++c) {
      row[c % kLanes] = read(source, frame, pixel, c);
    }
    sum.add(row);
  }
}

// A run of neighbouring source pixels under one output pixel; event e reads weight row base + e.
struct Tap {
  uint32_t first, last;
  int64_t base;
};

// The taps of output pixel (y, x), kernel rows (then columns) ascending, clipped to the image.
SNNPIPE_INLINE std::size_t taps_at(const Geometry& g, std::size_t channels, std::ptrdiff_t y,
                                   std::ptrdiff_t x, Tap* taps) {
  const std::ptrdiff_t depth = static_cast<std::ptrdiff_t>(channels);
  const std::ptrdiff_t left = x * g.stride[1] - g.padding[1];
  std::size_t count = 0;
  for (std::ptrdiff_t ky = 0; ky < g.kernel[0]; ++ky) {
    const std::ptrdiff_t row = y * g.stride[0] - g.padding[0] + ky * g.dilation[0];
    if (row < 0 || row >= g.height) continue;
    if (g.dilation[1] == 1) {
      const std::ptrdiff_t from = left < 0 ? 0 : left;
      const std::ptrdiff_t end = left + g.kernel[1] < g.width ? left + g.kernel[1] : g.width;
      if (from >= end) continue;
      taps[count++] = {static_cast<uint32_t>(row * g.width + from),
                       static_cast<uint32_t>(row * g.width + end),
                       (ky * g.kernel[1] - left) * depth};
      continue;
    }
    for (std::ptrdiff_t kx = 0; kx < g.kernel[1]; ++kx) {
      const std::ptrdiff_t column = left + kx * g.dilation[1];
      if (column < 0 || column >= g.width) continue;
      const uint32_t pixel = static_cast<uint32_t>(row * g.width + column);
      taps[count++] = {pixel, pixel + 1, (ky * g.kernel[1] + kx - column) * depth};
    }
  }
  return count;
}

template <class T>
struct Events {
  const uint32_t* index = nullptr;
  const T* value = nullptr;  // null: every event is 1
  const uint32_t* start = nullptr;
  std::size_t first_frame = 0;  // of the source, the first that was decoded
};

// Sum of the weight rows at the events under the taps, in the order (ky, kx, input channel).
// `first_pixel`: where the frame begins among those decoded.
template <class T, int W, int N>
SNNPIPE_INLINE void gather(Lanes<T, W, N>& sum, const Events<T>& events, const T* weights,
                           const Tap* taps, std::size_t count, std::size_t first_pixel) {
  for (std::size_t k = 0; k < count; ++k) {
    const uint32_t from = events.start[first_pixel + taps[k].first];
    const uint32_t end = events.start[first_pixel + taps[k].last];
    const int64_t base = taps[k].base;
    if (events.value == nullptr) {
      for (uint32_t e = from; e < end; ++e) {
        sum.add(weights + (base + events.index[e]) * static_cast<int64_t>(kLanes));
      }
    } else {
      for (uint32_t e = from; e < end; ++e) {
        sum.add_times(weights + (base + events.index[e]) * static_cast<int64_t>(kLanes),
                      events.value[e]);
      }
    }
  }
}

}  // namespace snnpipe
