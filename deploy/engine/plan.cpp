#include "plan.hpp"

#include <algorithm>
#include <cmath>

#include "parameters.hpp"

namespace snnpipe {
namespace {

// Integer sums stay below these, so that 32 bits hold every step (see neurons.hpp): an edge's
// products and what a relay passes on, and the sum into a neuron, which enters its current times 64.
constexpr double kLargestProducts = 1 << 30;
constexpr double kLargestSum = 1 << 24;
constexpr double kLargestCurrent = 1 << 29;  // with a memory
constexpr double kRegister = 1 << 23;
constexpr int kMostShift = 24;

double bias_limit(const Neurons<int32_t>& neurons) {
  double limit = 0;
  const Buffer<int32_t>& values = neurons.bias.values;
  for (std::size_t i = 0; i < values.size(); ++i) {
    limit = std::max(limit, std::abs(static_cast<double>(values.data()[i])));
  }
  return limit;
}

void bound(std::vector<Group<float>>&) {}

// A current wraps once a step. While 64 * sum is at most 2^24 that leads back into 24 bits; beyond,
// a current with a memory can grow until what it forgets makes up for what one wrap leaves.
double largest_current(const Neurons<int32_t>& neurons, double sum) {
  const Buffer<int32_t>& values = neurons.current_factor.values;
  const double kept = *std::max_element(values.data(), values.data() + values.size()) / 4096.0;
  return std::max(64 * sum, (64 * sum - 2 * kRegister) / (1 - kept));
}

// Proves from the weights that every sum stays where 32-bit integers hold it.
class Bounds {
  enum class Found { no, soon, yes };

 public:
  explicit Bounds(std::vector<Group<int32_t>>& groups) : groups_(groups), found_(groups.size()) {}

  void all() {
    for (std::size_t g = 0; g < groups_.size(); ++g) {
      if (groups_[g].kind == Kind::spiking) groups_[g].limit = 1;
    }
    for (std::size_t g = 0; g < groups_.size(); ++g) bound(g);
  }

 private:
  // The limit of what a group passes on; a sum's follows from those of the groups before it.
  void bound(std::size_t index) {
    Group<int32_t>& group = groups_[index];
    if (group.kind == Kind::input || found_[index] == Found::yes) return;
    if (found_[index] == Found::soon) {
      fail(name(index), "sums feed each other and can grow at every step");
    }
    found_[index] = Found::soon;
    double sum = 0, injected = 0;
    for (Edge<int32_t>& edge : group.edges) {
      Group<int32_t>& source = groups_[edge.source];
      if (source.kind != Kind::spiking) bound(edge.source);
      if (edge.op == Op::inject) {
        injected += source.limit;
      } else {
        sum += reach(index, edge, source.limit);
      }
    }
    const double allowed = group.kind == Kind::relay ? kLargestProducts : kLargestSum;
    if (sum > allowed) too_large(index, sum, allowed);
    if (group.kind == Kind::spiking && group.neurons.current_decays) {
      const double current = largest_current(group.neurons, sum);
      if (current > kLargestCurrent) too_large(index, current / 64, kLargestCurrent / 64);
    }
    if (group.kind == Kind::sum) {
      group.limit = 64 * sum + bias_limit(group.neurons) + injected;
    } else if (group.kind == Kind::relay) {
      group.limit = sum;
    }
    found_[index] = Found::yes;
  }

  // The largest magnitude of an edge's finished sum.
  double reach(std::size_t target, Edge<int32_t>& edge, double source) {
    double sum = edge.reach * source;
    if (sum > kLargestProducts) too_large(target, sum, kLargestProducts);
    edge.wraps &= sum >= kRegister;
    if (edge.wraps) sum = kRegister;
    return std::ceil(std::ldexp(sum, edge.shift));
  }

  static std::string name(std::size_t index) { return "group " + std::to_string(index); }

  [[noreturn]] static void too_large(std::size_t index, double sum, double allowed) {
    fail(name(index), "the sum into one neuron may reach " + std::to_string(sum) +
                          "; the engine's integers hold " + std::to_string(allowed));
  }

  std::vector<Group<int32_t>>& groups_;
  std::vector<Found> found_;
};

void bound(std::vector<Group<int32_t>>& groups) { Bounds(groups).all(); }

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
void Builder<T>::check_ends(const std::string& edge, std::size_t source, std::size_t target,
                            std::size_t delay) const {
  const bool back = source >= target;
  if (std::max(source, target) >= groups_.size() || (back && delay == 0)) {
    fail(edge, "an edge without a delay leads from an earlier group to a later one; there are " +
                   std::to_string(groups_.size()) + " groups");
  }
  if (delay > kLargestAxis) fail(edge, "the delay is too large");
  if (groups_[target].kind == Kind::input) fail(edge, "an input cannot be a target");
}

// `weight` is (Cout, channels / groups, kernel) in C, H, W order. A block of 64 outputs reads the
// channels of all groups it touches; weights between different groups are zero.
template <class T>
void Builder<T>::linear(const std::string& edge, std::size_t target, const T* weight,
                        Edge<T> made, std::size_t channels, std::size_t groups,
                        const View<T>* bias, int shift) {
  if (shift != 0 && !std::is_integral<T>::value) fail(edge, "there are no exponents in floats");
  if (shift < -kMostShift || shift > kMostShift) {
    fail(edge, "the exponent is " + std::to_string(shift) + "; expected -24 to 24");
  }
  made.shift = shift;
  const Shape& out = groups_[target].shape;
  const Geometry& geometry = made.geometry;
  const std::size_t window = static_cast<std::size_t>(geometry.kernel[0] * geometry.kernel[1]);
  const std::size_t in_group = channels / groups, out_group = out.channels / groups;
  check_finite(edge + ", weight", weight, out.channels * in_group * window);
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
                      const View<T>* bias, const Window& window, std::size_t groups,
                      std::size_t delay, int shift) {
  const std::string edge = label("conv", source, target);
  check_ends(edge, source, target, delay);
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
  Edge<T> made{source, delay, Op::linear};
  made.geometry = geometry_of(in, window);
  made.wraps = std::is_integral<T>::value;
  linear(edge, target, weight.data, std::move(made), in.channels, groups, bias, shift);
}

template <class T>
void Builder<T>::dense(std::size_t source, std::size_t target, const View<T>& weight,
                       const View<T>* bias, std::size_t delay, int shift) {
  const std::string edge = label("dense", source, target);
  check_ends(edge, source, target, delay);
  const Shape& in = groups_[source].shape;
  const Shape& out = groups_[target].shape;
  const std::vector<std::size_t> expected = {out.channels, in.size()};
  if (weight.shape != expected || out.pixels() != 1) {
    fail(edge, "the weight has shape " + text(weight.shape) + "; expected " + text(expected) +
                   " into a flat group");
  }
  Edge<T> made{source, delay, Op::linear};
  made.geometry.width = made.geometry.kernel[1] = static_cast<std::ptrdiff_t>(in.pixels());
  linear(edge, target, weight.data, std::move(made), in.channels, 1, bias, shift);
}

template <class T>
void Builder<T>::pool(std::size_t source, std::size_t target, const Window& window, bool mean,
                      std::size_t delay) {
  const std::string edge = label("pool", source, target);
  check_ends(edge, source, target, delay);
  const Shape& in = groups_[source].shape;
  const Shape& out = groups_[target].shape;
  if (in.channels != out.channels) fail(edge, "pooling keeps the number of channels");
  check_window(edge, in, out, window);
  if (window.dilation[0] != 1 || window.dilation[1] != 1) fail(edge, "pooling has no dilation");
  if (mean && std::is_integral<T>::value) fail(edge, "there is no mean in integers");
  Edge<T> made{source, delay, Op::pool};
  made.geometry = geometry_of(in, window);
  const double area = static_cast<double>(window.kernel[0]) * static_cast<double>(window.kernel[1]);
  if (mean) made.area = static_cast<T>(area);
  made.reach = area;
  groups_[target].edges.push_back(std::move(made));
}

template <class T>
void Builder<T>::identity(std::size_t source, std::size_t target, const View<T>* factor,
                          std::size_t delay) {
  const std::string edge = label("identity", source, target);
  check_ends(edge, source, target, delay);
  const Shape& in = groups_[source].shape;
  const Shape& out = groups_[target].shape;
  if (in.size() != out.size()) {
    fail(edge, "shape " + text(in) + " does not fit shape " + text(out));
  }
  if (factor != nullptr && std::is_integral<T>::value) fail(edge, "there is no factor in integers");
  Edge<T> made{source, delay, Op::identity};
  if (factor != nullptr) made.factor = rows_of("factor", out, *factor, T{0});
  made.permutes = in.channels != out.channels;
  made.reach = 1;
  groups_[target].edges.push_back(std::move(made));
}

template <class T>
void Builder<T>::inject(std::size_t source, std::size_t target) {
  const std::string edge = label("inject", source, target);
  check_ends(edge, source, target, 0);
  const Group<T>& from = groups_[source];
  Group<T>& to = groups_[target];
  const bool again = std::any_of(to.edges.begin(), to.edges.end(),
                                 [](const Edge<T>& other) { return other.op == Op::inject; });
  if (!std::is_integral<T>::value || from.kind != Kind::input || !(from.shape == to.shape) ||
      to.kind == Kind::relay || again) {
    fail(edge, "one input of the target's shape may be injected into an integer group");
  }
  Edge<T> made{source, 0, Op::inject};
  to.edges.push_back(std::move(made));
}

template <class T>
std::vector<Stage> Builder<T>::stages(const Loops& loops) const {
  std::vector<Stage> made;
  std::size_t next = 0;
  const auto singles_to = [&](std::size_t end) {
    for (; next < end; ++next) made.push_back({next, next + 1, false});
  };
  for (const auto& [first, last] : loops) {
    if (first < next || last < first || last >= groups_.size()) {
      fail("loop", "groups " + std::to_string(first) + " to " + std::to_string(last) +
                       " are no ascending range of groups");
    }
    singles_to(first);
    made.push_back({first, last + 1, true});
    next = last + 1;
  }
  singles_to(groups_.size());
  for (const Stage& stage : made) {
    for (std::size_t g = stage.first; g < stage.end; ++g) {
      if (stage.loop && groups_[g].kind == Kind::input) fail("loop", "an input cannot be in it");
      for (const Edge<T>& edge : groups_[g].edges) {
        if (edge.source >= (stage.loop ? stage.end : g)) {
          fail("group " + std::to_string(g), "is fed by group " + std::to_string(edge.source) +
                                                 ", which neither runs earlier nor in its loop");
        }
      }
    }
  }
  return made;
}

template <class T>
std::shared_ptr<const Plan<T>> Builder<T>::build(std::size_t output, const Loops& loops,
                                                 const Kernels* kernels) {
  if (output >= groups_.size() || groups_[output].kind == Kind::input ||
      groups_[output].kind == Kind::relay) {
    fail("output", "group " + std::to_string(output) + " is no population of neurons");
  }
  bound(groups_);
  auto plan = std::make_shared<Plan<T>>();
  plan->stages = stages(loops);
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
