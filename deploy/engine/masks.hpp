// Spikes as bits: 64 channels of one pixel are one word, bit c of word c / 64. Bits beyond the last
// channel are always 0 (padding neurons cannot fire).
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#define SNNPIPE_INLINE inline __attribute__((always_inline))

namespace snnpipe {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "packed spikes are little-endian words");

// N bytes of 0 or 1 to one word: a multiplication gathers the low bits of eight bytes in its top
// byte, in order.
template <int N>
SNNPIPE_INLINE uint64_t pack_bytes(const uint8_t* bytes) {
  uint64_t word = 0;
  for (int k = 0; k < N / 8; ++k) {
    uint64_t eight;
    std::memcpy(&eight, bytes + 8 * k, 8);
    word |= ((eight * 0x0102040810204080ull) >> 56) << (8 * k);
  }
  return word;
}

// Which pixels and channels of which frames become events, and how wide an event row is.
struct Scan {
  std::size_t frames, pixels, width;  // width: pixels of one row, where event numbers start anew
  std::size_t first, last;            // channels
};

// Events of all frames in one list. Within a row of pixels they are numbered x * channels + c and
// ascend; start[frame * pixels + pixel] is where a pixel's events begin, with one entry more at
// the end. So the events of neighbouring pixels of a row are one slice.
SNNPIPE_INLINE void decode_masks(const uint64_t* masks, std::size_t words, const Scan& scan,
                                 uint32_t* events, uint32_t* start) {
  const std::size_t channels = scan.last - scan.first;
  const std::size_t first_word = scan.first / 64, last_word = (scan.last + 63) / 64;
  const uint64_t head = ~uint64_t{0} << (scan.first % 64);
  const uint64_t tail = scan.last % 64 ? ~uint64_t{0} >> (64 - scan.last % 64) : ~uint64_t{0};
  uint32_t count = 0;
  for (std::size_t f = 0; f < scan.frames; ++f) {
    std::size_t x = 0;
    for (std::size_t p = 0; p < scan.pixels; ++p) {
      *start++ = count;
      for (std::size_t w = first_word; w < last_word; ++w) {
        uint64_t word = masks[w];
        if (w == first_word) word &= head;
        if (w + 1 == last_word) word &= tail;
        const uint32_t number = static_cast<uint32_t>(x * channels + w * 64 - scan.first);
        while (word != 0) {
          events[count++] = number + static_cast<uint32_t>(__builtin_ctzll(word));
          word &= word - 1;
        }
      }
      masks += words;
      if (++x == scan.width) x = 0;
    }
  }
  *start = count;
}

// Where a population's values lie: frame, pixel and channel strides, in values.
struct Strides {
  std::size_t frame, pixel, channel;
};

// The same of graded values: an event is a value other than 0.
template <class T>
SNNPIPE_INLINE void decode_values(const T* values, const Strides& strides, const Scan& scan,
                                  uint32_t* events, T* event_values, uint32_t* start) {
  const std::size_t channels = scan.last - scan.first;
  uint32_t count = 0;
  for (std::size_t f = 0; f < scan.frames; ++f) {
    std::size_t x = 0;
    for (std::size_t p = 0; p < scan.pixels; ++p) {
      *start++ = count;
      const T* pixel = values + f * strides.frame + p * strides.pixel;
      for (std::size_t c = 0; c < channels; ++c) {
        const T value = pixel[(scan.first + c) * strides.channel];
        // Written always, kept when it counts: pixels of an image are too irregular for a branch.
        events[count] = static_cast<uint32_t>(x * channels + c);
        event_values[count] = value;
        count += value != T{0};
      }
      if (++x == scan.width) x = 0;
    }
  }
  *start = count;
}

}  // namespace snnpipe
