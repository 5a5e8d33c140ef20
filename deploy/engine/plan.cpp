#include "plan.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

namespace snnpipe {
namespace {

constexpr std::size_t kLargestAxis = std::size_t{1} << 24;
constexpr std::size_t kLargestGroup = std::size_t{1} << 30;
// Integer sums stay below these, so that 32 bits hold every step (see neurons.hpp).
constexpr double kLargestSum = 1 << 24;
constexpr double kLargestSumWithMemory = 1 << 18;
constexpr int32_t kLargestBias = 1 << 28;

[[noreturn]] void fail(const std::string& where, const std::string& what) {
  throw std::invalid_argument(where + ": " + what);
}

std::string text(const std::vector<std::size_t>& shape) {
  std::string out;
  for (std::size_t axis : shape) out += (out.empty() ? "" : ", ") + std::to_string(axis);
  return "(" + out + ")";
}

std::string text(const Shape& s) {
  return text(std::vector<std::size_t>{s.channels, s.height, s.width});
}

void check_shape(const Shape& shape) {
  for (std::size_t axis : {shape.channels, shape.height, shape.width}) {
    if (axis < 1 || axis > kLargestAxis) fail("group", "shape " + text(shape) + " is not usable");
  }
  // Each axis is at most 2^24, so the product of two cannot overflow 64 bits.
  if (shape.pixels() > kLargestGroup || shape.channels > kLargestGroup / shape.pixels()) {
    fail("group", "shape " + text(shape) + " has more than 2^30 neurons");
  }
}

bool finite(float value) { return std::isfinite(value); }
bool finite(int32_t) { return true; }

template <class T>
void check_finite(const std::string& where, const T* data, std::size_t size) {
  if (!std::all_of(data, data + size, [](T value) { return finite(value); })) {
    fail(where, "holds a value that is not finite");
  }
}

// One value, one per channel or one per neuron (C, H, W order) to rows of 64; `fill` pads.
template <class T>
Rows<T> rows_of(const std::string& name, const Shape& shape, const View<T>& view, T fill) {
  const std::size_t n = view.size();
  if (n != 1 && n != shape.channels && n != shape.size()) {
    fail("parameter '" + name + "'", "has " + std::to_string(n) + " values for a group of shape " +
                                         text(shape) + "; expected 1, one per channel or neuron");
  }
  check_finite("parameter '" + name + "'", view.data, n);
  const bool per_neuron = n == shape.size() && n != shape.channels && n != 1;
  const std::size_t pixels = per_neuron ? shape.pixels() : 1;
  const std::size_t stride = shape.blocks() * kLanes;
  Rows<T> rows{Buffer<T>(pixels * stride), per_neuron ? stride : 0};
  std::fill_n(rows.values.data(), pixels * stride, fill);
  for (std::size_t p = 0; p < pixels; ++p) {
    for (std::size_t c = 0; c < shape.channels; ++c) {
      const std::size_t at = n == 1 ? 0 : per_neuron ? c * pixels + p : c;
      rows.values.data()[p * stride + c] = view.data[at];
    }
  }
  return rows;
}

void check_range(const std::string& name, const View<int32_t>& view, int32_t low, int32_t high) {
  for (std::size_t i = 0; i < view.size(); ++i) {
    if (view.data[i] < low || view.data[i] > high) {
      fail("parameter '" + name + "'", "holds " + std::to_string(view.data[i]) + "; expected " +
                                           std::to_string(low) + " to " + std::to_string(high));
    }
  }
}

template <class T, class Change>
void change(Rows<T>& rows, Change apply) {
  T* data = rows.values.data();
  std::transform(data, data + rows.values.size(), data, apply);
}

double bias_limit(const Neurons<int32_t>& neurons) {
  double limit = 0;
  const Buffer<int32_t>& values = neurons.bias.values;
  for (std::size_t i = 0; i < values.size(); ++i) {
    limit = std::max(limit, std::abs(static_cast<double>(values.data()[i])));
  }
  return limit;
}

void bound(std::vector<Group<float>>&) {}

// Proves from the weights that every sum stays where 32-bit integers hold it.
void bound(std::vector<Group<int32_t>>& groups) {
  for (std::size_t index = 0; index < groups.size(); ++index) {
    Group<int32_t>& group = groups[index];
    if (group.kind == Kind::input) continue;
    double sum = 0, injected = 0;
    for (const Edge<int32_t>& edge : group.edges) {
      const double source = groups[edge.source].limit;
      if (edge.op == Op::inject) {
        injected += source;
      } else {
        sum += edge.reach * source;
      }
    }
    const bool memory = group.kind == Kind::spiking && group.neurons.current_decays;
    const double allowed = memory ? kLargestSumWithMemory : kLargestSum;
    if (sum > allowed) {
      fail("group " + std::to_string(index),
           "the sum into one neuron may reach " + std::to_string(sum) +
               "; the engine's integers hold " + std::to_string(allowed));
    }
    group.limit = group.kind == Kind::spiking ? 1
                  : group.kind == Kind::sum   ? 64 * sum + bias_limit(group.neurons) + injected
                                              : sum;
  }
}

Geometry geometry_of(const Shape& source, const Window& window) {
  Geometry geometry;
  geometry.height = static_cast<std::ptrdiff_t>(source.height);
  geometry.width = static_cast<std::ptrdiff_t>(source.width);
  for (int axis = 0; axis < 2; ++axis) {
    geometry.kernel[axis] = static_cast<std::ptrdiff_t>(window.kernel[axis]);
    geometry.stride[axis] = static_cast<std::ptrdiff_t>(window.stride[axis]);
    geometry.padding[axis] = static_cast<std::ptrdiff_t>(window.padding[axis]);
    geometry.dilation[axis] = static_cast<std::ptrdiff_t>(window.dilation[axis]);
  }
  return geometry;
}

void check_window(const std::string& edge, const Shape& source, const Shape& target,
                  const Window& window) {
  const std::size_t in[2] = {source.height, source.width};
  const std::size_t out[2] = {target.height, target.width};
  for (int axis = 0; axis < 2; ++axis) {
    for (std::size_t value : {window.kernel[axis], window.stride[axis], window.dilation[axis]}) {
      if (value < 1 || value > kLargestAxis) {
        fail(edge, "kernel, stride and dilation must be 1 or more, found " +
                       std::to_string(value));
      }
    }
    if (window.padding[axis] > kLargestAxis) fail(edge, "the padding is too large");
    const std::size_t reach = window.dilation[axis] * (window.kernel[axis] - 1) + 1;
    const std::size_t padded = in[axis] + 2 * window.padding[axis];
    const std::size_t windows = padded < reach ? 0 : (padded - reach) / window.stride[axis] + 1;
    if (windows != out[axis]) {
      fail(edge, "its windows make " + std::to_string(windows) +
                     " along one axis, the target has " + std::to_string(out[axis]));
    }
  }
}

std::string label(const char* op, std::size_t source, std::size_t target) {
  return std::string(op) + " edge from group " + std::to_string(source) + " to group " +
         std::to_string(target);
}

template <class T>
Buffer<T> bias_rows(const std::string& edge, const Shape& target, const View<T>& bias) {
  if (bias.shape.size() != 1 || bias.shape[0] != target.channels) {
    fail(edge, "the bias has shape " + text(bias.shape) + "; expected (" +
                   std::to_string(target.channels) + ")");
  }
  check_finite(edge + ", bias", bias.data, bias.size());
  Buffer<T> rows(target.blocks() * kLanes);
  std::copy_n(bias.data, target.channels, rows.data());
  return rows;
}

}  // namespace

Neurons<float> float_neurons(const Shape& shape, const View<float>& decay,
                             const View<float>& threshold, const View<float>& rest,
                             bool fires_at_threshold, bool subtracts) {
  check_shape(shape);
  Neurons<float> neurons;
  neurons.decay = rows_of("decay", shape, decay, 0.0f);
  // Padding never fires: its current is 0 and its threshold infinite.
  const float never = std::numeric_limits<float>::infinity();
  neurons.threshold = rows_of("threshold", shape, threshold, never);
  neurons.after = rows_of("v_reset", shape, rest, 0.0f);
  if (subtracts) {
    neurons.after = rows_of("threshold", shape, threshold, 0.0f);
    change(neurons.after, [](float value) { return -value; });
  }
  neurons.equality_fires = fires_at_threshold ? -1 : 0;
  neurons.membrane_stays = subtracts ? -1 : 0;
  return neurons;
}

Neurons<int32_t> integer_bias(const Shape& shape, const View<int32_t>& bias) {
  check_shape(shape);
  check_range("bias", bias, -kLargestBias, kLargestBias);
  Neurons<int32_t> neurons;
  neurons.bias = rows_of("bias", shape, bias, int32_t{0});
  return neurons;
}

Neurons<int32_t> integer_neurons(const Shape& shape, const View<int32_t>& du,
                                 const View<int32_t>& dv, const View<int32_t>& threshold,
                                 const View<int32_t>& bias) {
  Neurons<int32_t> neurons = integer_bias(shape, bias);
  check_range("du", du, 0, 4095);
  check_range("dv", dv, 0, 4096);
  check_range("threshold", threshold, 0, 1 << 17);
  neurons.current_factor = rows_of("du", shape, du, int32_t{4095});
  change(neurons.current_factor, [](int32_t value) { return 4095 - value; });
  neurons.factor = rows_of("dv", shape, dv, int32_t{4096});
  change(neurons.factor, [](int32_t value) { return 4096 - value; });
  neurons.threshold = rows_of("threshold", shape, threshold, int32_t{1 << 17});
  change(neurons.threshold, [](int32_t value) { return value * 64; });
  for (std::size_t i = 0; i < du.size(); ++i) neurons.current_decays |= du.data[i] != 4095;
  return neurons;
}

template <class T>
std::size_t Plan<T>::inputs() const {
  return static_cast<std::size_t>(
      std::count_if(groups.begin(), groups.end(),
                    [](const Group<T>& group) { return group.kind == Kind::input; }));
}

template <class T>
std::size_t Builder<T>::input(Shape shape, double limit) {
  if (!(limit >= 0 && limit <= kLargestBias)) {
    fail("input", "the largest value must lie between 0 and 2^28");
  }
  const std::size_t index = group(Kind::input, shape, Neurons<T>{});
  groups_[index].limit = limit;
  return index;
}

template <class T>
std::size_t Builder<T>::group(Kind kind, Shape shape, Neurons<T> neurons) {
  check_shape(shape);
  Group<T> made;
  made.kind = kind;
  made.shape = shape;
  made.neurons = std::move(neurons);
  groups_.push_back(std::move(made));
  return groups_.size() - 1;
}

template <class T>
void Builder<T>::check_ends(const std::string& edge, std::size_t source,
                            std::size_t target) const {
  if (target >= groups_.size() || source >= target) {
    fail(edge, "an edge leads from an earlier group to a later one; there are " +
                   std::to_string(groups_.size()) + " groups");
  }
  if (groups_[target].kind == Kind::input) fail(edge, "an input cannot be a target");
}

// `weight` is (Cout, channels / groups, kernel) in C, H, W order. A block of 64 outputs reads the
// channels of all groups it touches; weights between different groups are zero.
template <class T>
void Builder<T>::linear(const std::string& edge, std::size_t source, std::size_t target,
                        const T* weight, const Geometry& geometry, std::size_t channels,
                        std::size_t groups, const View<T>* bias) {
  const Shape& out = groups_[target].shape;
  const std::size_t window = static_cast<std::size_t>(geometry.kernel[0] * geometry.kernel[1]);
  const std::size_t in_group = channels / groups, out_group = out.channels / groups;
  check_finite(edge + ", weight", weight, out.channels * in_group * window);
  Edge<T> made;
  made.source = source;
  made.op = Op::linear;
  made.geometry = geometry;
  std::size_t rows = 0;
  for (std::size_t block = 0; block < out.blocks(); ++block) {
    const std::size_t last_out = std::min(out.channels, (block + 1) * kLanes) - 1;
    Slab slab;
    slab.first = block * kLanes / out_group * in_group;
    slab.last = (last_out / out_group + 1) * in_group;
    slab.offset = rows * kLanes;
    rows += window * (slab.last - slab.first);
    made.slabs.push_back(slab);
  }
  made.weights = Buffer<T>(rows * kLanes);
  for (std::size_t o = 0; o < out.channels; ++o) {
    const Slab& slab = made.slabs[o / kLanes];
    const std::size_t width = slab.last - slab.first;
    const std::size_t shift = o / out_group * in_group - slab.first;
    double magnitude = 0;
    for (std::size_t c = 0; c < in_group; ++c) {
      for (std::size_t k = 0; k < window; ++k) {
        const T value = weight[(o * in_group + c) * window + k];
        const std::size_t row = k * width + shift + c;
        made.weights.data()[slab.offset + row * kLanes + o % kLanes] = value;
        magnitude += std::abs(static_cast<double>(value));
      }
    }
    made.reach = std::max(made.reach, magnitude);
  }
  if (bias != nullptr) made.bias = bias_rows(edge, out, *bias);
  groups_[target].edges.push_back(std::move(made));
}

template <class T>
void Builder<T>::conv(std::size_t source, std::size_t target, const View<T>& weight,
                      const View<T>* bias, const Window& window, std::size_t groups) {
  const std::string edge = label("conv", source, target);
  check_ends(edge, source, target);
  const Shape& in = groups_[source].shape;
  const Shape& out = groups_[target].shape;
  if (groups < 1 || in.channels % groups != 0 || out.channels % groups != 0) {
    fail(edge, std::to_string(groups) + " groups do not divide the channels");
  }
  const std::vector<std::size_t> expected = {out.channels, in.channels / groups, window.kernel[0],
                                             window.kernel[1]};
  if (weight.shape != expected) {
    fail(edge, "the weight has shape " + text(weight.shape) + "; expected " + text(expected));
  }
  check_window(edge, in, out, window);
  linear(edge, source, target, weight.data, geometry_of(in, window), in.channels, groups, bias);
}

template <class T>
void Builder<T>::dense(std::size_t source, std::size_t target, const View<T>& weight,
                       const View<T>* bias) {
  const std::string edge = label("dense", source, target);
  check_ends(edge, source, target);
  const Shape& in = groups_[source].shape;
  const Shape& out = groups_[target].shape;
  const std::vector<std::size_t> expected = {out.channels, in.size()};
  if (weight.shape != expected || out.pixels() != 1) {
    fail(edge, "the weight has shape " + text(weight.shape) + "; expected " + text(expected) +
                   " into a flat group");
  }
  Geometry geometry;
  geometry.width = geometry.kernel[1] = static_cast<std::ptrdiff_t>(in.pixels());
  linear(edge, source, target, weight.data, geometry, in.channels, 1, bias);
}

template <class T>
void Builder<T>::pool(std::size_t source, std::size_t target, const Window& window, bool mean) {
  const std::string edge = label("pool", source, target);
  check_ends(edge, source, target);
  const Shape& in = groups_[source].shape;
  const Shape& out = groups_[target].shape;
  if (in.channels != out.channels) fail(edge, "pooling keeps the number of channels");
  check_window(edge, in, out, window);
  if (window.dilation[0] != 1 || window.dilation[1] != 1) fail(edge, "pooling has no dilation");
  if (mean && std::is_integral<T>::value) fail(edge, "there is no mean in integers");
  Edge<T> made;
  made.source = source;
  made.op = Op::pool;
  made.geometry = geometry_of(in, window);
  const double area = static_cast<double>(window.kernel[0]) * static_cast<double>(window.kernel[1]);
  if (mean) made.area = static_cast<T>(area);
  made.reach = area;
  groups_[target].edges.push_back(std::move(made));
}

template <class T>
void Builder<T>::identity(std::size_t source, std::size_t target) {
  const std::string edge = label("identity", source, target);
  check_ends(edge, source, target);
  const Shape& in = groups_[source].shape;
  const Shape& out = groups_[target].shape;
  if (in.size() != out.size() || !(in == out || out.pixels() == 1)) {
    fail(edge, "shape " + text(in) + " does not fit shape " + text(out));
  }
  Edge<T> made;
  made.source = source;
  made.op = Op::identity;
  made.permutes = !(in == out);
  made.reach = 1;
  groups_[target].edges.push_back(std::move(made));
}

template <class T>
void Builder<T>::inject(std::size_t source, std::size_t target) {
  const std::string edge = label("inject", source, target);
  check_ends(edge, source, target);
  const Group<T>& from = groups_[source];
  Group<T>& to = groups_[target];
  const bool again = std::any_of(to.edges.begin(), to.edges.end(),
                                 [](const Edge<T>& other) { return other.op == Op::inject; });
  if (!std::is_integral<T>::value || from.kind != Kind::input || !(from.shape == to.shape) ||
      to.kind == Kind::relay || again) {
    fail(edge, "one input of the target's shape may be injected into an integer group");
  }
  Edge<T> made;
  made.source = source;
  made.op = Op::inject;
  to.edges.push_back(std::move(made));
}

template <class T>
std::shared_ptr<const Plan<T>> Builder<T>::build(std::size_t output, const Kernels* kernels) {
  if (output >= groups_.size() || groups_[output].kind == Kind::input ||
      groups_[output].kind == Kind::relay) {
    fail("output", "group " + std::to_string(output) + " is no spiking or summing group");
  }
  bound(groups_);
  auto plan = std::make_shared<Plan<T>>();
  plan->groups = std::move(groups_);
  plan->output = output;
  plan->kernels = kernels;
  groups_.clear();
  return plan;
}

template struct Plan<float>;
template struct Plan<int32_t>;
template class Builder<float>;
template class Builder<int32_t>;

}  // namespace snnpipe
