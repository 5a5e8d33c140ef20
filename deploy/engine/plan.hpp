// A network as the engine runs it: plain data, checked and packed once, never changed after.
//
// T is float (float32 networks) or int32_t (Loihi integers). Every population is a (C, H, W) image,
// held channels-last in blocks of 64 channels; a flat population of N neurons is (N, 1, 1).
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <utility>
#include <vector>

namespace snnpipe {

constexpr std::size_t kLanes = 64;  // channels of one block, bits of one mask word
constexpr std::size_t kAlignment = 64;

// Memory aligned for vector loads. Not initialised unless asked for: event lists are sized for the
// worst case and mostly untouched.
template <class T>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(std::size_t size, bool zero = true) : size_(size) {
    if (size > (std::size_t{1} << 46) / sizeof(T)) throw std::bad_alloc();
    const std::size_t bytes = (size * sizeof(T) + kAlignment) / kAlignment * kAlignment;
    data_.reset(static_cast<T*>(std::aligned_alloc(kAlignment, bytes)));
    if (!data_) throw std::bad_alloc();
    if (zero) std::memset(data_.get(), 0, bytes);
  }
  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }

 private:
  struct Free {
    void operator()(T* pointer) const { std::free(pointer); }
  };
  std::unique_ptr<T[], Free> data_;
  std::size_t size_ = 0;
};

struct Shape {
  std::size_t channels = 0, height = 0, width = 0;
  std::size_t pixels() const { return height * width; }
  std::size_t blocks() const { return (channels + kLanes - 1) / kLanes; }
  std::size_t size() const { return channels * pixels(); }
  bool operator==(const Shape& other) const {
    return channels == other.channels && height == other.height && width == other.width;
  }
};

// An array of the caller, only read while the call lasts.
template <class T>
struct View {
  const T* data = nullptr;
  std::vector<std::size_t> shape;
  std::size_t size() const {
    std::size_t n = 1;
    for (std::size_t axis : shape) n *= axis;
    return n;
  }
};

// A parameter of every neuron: 64 values per (pixel, block), or per block when all pixels share them.
template <class T>
struct Rows {
  Buffer<T> values;
  std::size_t pixel_stride = 0;  // 0: shared by all pixels
  const T* at(std::size_t pixel, std::size_t block) const {
    return values.data() + pixel * pixel_stride + block * kLanes;
  }
  bool empty() const { return values.empty(); }
};

template <class T>
struct Neurons;

template <>
struct Neurons<float> {
  Rows<float> decay, threshold;
  Rows<float> after;           // a spike leaves v = (u or 0) + after: -threshold or the rest
  int32_t equality_fires = 0;  // all bits set: fires at u == threshold too
  int32_t membrane_stays = 0;  // all bits set: u, not 0, in the line above
  bool resets_late = false;    // the threshold is taken off one step later instead
  Rows<float> gain, leak;      // empty: the current enters the membrane as it is
  Rows<float> synaptic_decay, synaptic_gain;  // empty: the current has no memory
};

template <>
struct Neurons<int32_t> {
  Rows<int32_t> current_factor;  // 4095 - du, in 1/4096
  Rows<int32_t> factor;          // 4096 - dv, in 1/4096
  Rows<int32_t> threshold;       // in membrane units (vth * 64), 1 less where equality fires
  Rows<int32_t> taken;           // what a spike takes off the membrane; empty: all of it
  Rows<int32_t> bias;            // in membrane units
  bool current_decays = false;   // false: du = 4095 everywhere, the current has no memory
};

enum class Kind {
  input,    // values from outside
  spiking,  // 0 or 1
  leaky,    // its membrane; floats only
  sum,      // its current; in integers 64 * sum + bias
  relay,    // between two operations of one synapse: the bare sum
};

enum class Op {
  linear,    // convolution or dense map
  pool,      // sum or mean over windows
  identity,  // element i to element i in C, H, W order, times a factor if there is one
  inject,    // integers only: added to the current in membrane units
};

// Windows over the source seen as an image of height x width. A dense map is one window over an
// image of one row, so that it shares every line of code with the convolution.
struct Geometry {
  std::ptrdiff_t height = 1, width = 1;
  std::ptrdiff_t kernel[2] = {1, 1}, stride[2] = {1, 1}, padding[2] = {0, 0}, dilation[2] = {1, 1};
  // A row of a kernel is one slice of the event list unless dilation tears it apart.
  std::size_t taps() const {
    return static_cast<std::size_t>(kernel[0] * (dilation[1] == 1 ? 1 : kernel[1]));
  }
};

// The weights of one block of 64 outputs: rows of 64, (ky, kx, input channel first..last).
struct Slab {
  std::size_t first = 0, last = 0, offset = 0;
};

template <class T>
struct Edge {
  std::size_t source = 0;
  std::size_t delay = 0;  // steps; before the first value that comes through, zeros
  Op op = Op::identity;
  Geometry geometry;
  std::vector<Slab> slabs;
  Buffer<T> weights;
  Buffer<T> bias;         // per output block, empty when there is none
  T area = 0;             // mean pooling divides by it; 0 for a sum
  Rows<T> factor;         // of an identity, empty when there is none
  int shift = 0;          // integers: the sum's exponent, to the left, or to the right with floor
  bool wraps = false;     // integers: the sum may leave the 24 bits that a convolution keeps
  bool permutes = false;  // an identity between two layouts (a flattened image)
  double reach = 0;       // largest sum of |weights| into one neuron
};

template <class T>
struct Group {
  Kind kind = Kind::input;
  Shape shape;
  Neurons<T> neurons;
  std::vector<Edge<T>> edges;
  double limit = 0;  // no value that leaves this group is larger; kept for integers only
};

struct Kernels;

// Groups first to end - 1 run together: one group over all steps, or a loop step by step.
struct Stage {
  std::size_t first = 0, end = 0;
  bool loop = false;
};

template <class T>
struct Plan {
  std::vector<Group<T>> groups;
  std::vector<Stage> stages;  // all groups, in their order
  std::size_t output = 0;
  const Kernels* kernels = nullptr;
  std::size_t inputs() const;
};

using Loops = std::vector<std::pair<std::size_t, std::size_t>>;

struct Window {
  std::size_t kernel[2], stride[2], padding[2], dilation[2];
};

// Takes a network over, one group and one edge at a time; groups run and a group's edges are summed
// in the order of the calls. An edge that is not delayed leads from an earlier group to a later one,
// any edge from a group that runs earlier or in the same loop. Throws std::invalid_argument that
// names the edge, what was found and what is legal.
template <class T>
class Builder {
 public:
  std::size_t size() const { return groups_.size(); }
  std::size_t input(Shape shape, double limit);
  std::size_t group(Kind kind, Shape shape, Neurons<T> neurons);
  void conv(std::size_t source, std::size_t target, const View<T>& weight, const View<T>* bias,
            const Window& window, std::size_t groups, std::size_t delay, int shift);
  void dense(std::size_t source, std::size_t target, const View<T>& weight, const View<T>* bias,
             std::size_t delay, int shift);
  void pool(std::size_t source, std::size_t target, const Window& window, bool mean,
            std::size_t delay);
  void identity(std::size_t source, std::size_t target, const View<T>* factor, std::size_t delay);
  void inject(std::size_t source, std::size_t target);
  // `loops`: first and last group of each loop, ascending.
  std::shared_ptr<const Plan<T>> build(std::size_t output, const Loops& loops,
                                       const Kernels* kernels);

 private:
  void check_ends(const std::string& edge, std::size_t source, std::size_t target,
                  std::size_t delay) const;
  void linear(const std::string& edge, std::size_t target, const T* weight, Edge<T> made,
              std::size_t channels, std::size_t groups, const View<T>* bias, int shift);
  std::vector<Stage> stages(const Loops& loops) const;
  std::vector<Group<T>> groups_;
};

}  // namespace snnpipe
