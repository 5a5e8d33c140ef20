#include "executor.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <string>

#include "layer.hpp"

namespace snnpipe {
namespace {

// What a tile may take, so that masks, events and weights of a layer stay in the outer caches.
constexpr std::size_t kTileBytes = std::size_t{8} << 20;
constexpr std::size_t kLargestTile = 16;

// Memory that grows and is used again for the next tile.
template <class T>
struct Scratch {
  Buffer<T> buffer;
  T* reserve(std::size_t size) {
    if (buffer.size() < size) buffer = Buffer<T>(size, false);
    return buffer.data();
  }
};

// What a population did in the tile at hand; frame = step * samples + sample.
template <class T>
struct Activity {
  Scratch<uint64_t> masks;
  Scratch<T> values;
  Scratch<State<T>> states;  // in loops: [block][sample][pixel]
  std::size_t steps = 1;     // 1 when nothing changes from step to step
};

// The event list of one edge, kept while neighbouring blocks read the same channels.
template <class T>
struct EventList {
  Scratch<uint32_t> index, start;
  Scratch<T> value;
  std::size_t first = 0, last = 0;
};

BlockKernel<float> kernel_of(const BlockKernels& kernels, const Group<float>& group, bool) {
  const Neurons<float>& own = group.neurons;
  const bool plain = group.kind != Kind::leaky && own.gain.empty() && own.synaptic_decay.empty() &&
                     !own.resets_late;
  return plain ? kernels.plain_float : kernels.general_float;
}
BlockKernel<int32_t> kernel_of(const BlockKernels& kernels, const Group<int32_t>& group,
                               bool counted) {
  const Neurons<int32_t>& own = group.neurons;
  if (group.kind == Kind::spiking && counted) return kernels.counted_integer;
  const bool plain = !own.current_decays && own.taken.empty();
  return plain ? kernels.plain_integer : kernels.general_integer;
}
void decode(const Kernels& kernels, const float* values, const Strides& strides, const Scan& scan,
            uint32_t* events, float* out, uint32_t* start) {
  kernels.float_values(values, strides, scan, events, out, start);
}
void decode(const Kernels& kernels, const int32_t* values, const Strides& strides,
            const Scan& scan, uint32_t* events, int32_t* out, uint32_t* start) {
  kernels.integer_values(values, strides, scan, events, out, start);
}

bool allowed(float value, double) { return std::isfinite(value); }
bool allowed(int32_t value, double limit) {
  return std::abs(static_cast<double>(value)) <= limit;
}

template <class T>
class Run {
 public:
  Run(const Plan<T>& plan, const Request& request, const std::vector<Frames<T>>& inputs,
      const std::vector<GroupRecord<T>>& records, T* outputs)
      : plan_(plan), request_(request), inputs_(inputs), records_(records), outputs_(outputs),
        activity_(plan.groups.size()) {}

  void all() {
    set_steps();
    const std::size_t tile = tile_samples();
    for (first_ = 0; first_ < request_.batch; first_ += tile) {
      samples_ = std::min(tile, request_.batch - first_);
      std::size_t input = 0;
      for (const Stage& stage : plan_.stages) {
        if (plan_.groups[stage.first].kind == Kind::input) {
          load(stage.first, inputs_[input++]);
        } else {
          run(stage);
        }
      }
    }
  }

 private:
  void set_steps() {
    std::size_t input = 0;
    for (const Stage& stage : plan_.stages) {
      for (std::size_t g = stage.first; g < stage.end; ++g) {
        const Group<T>& group = plan_.groups[g];
        bool moves = stage.loop || group.kind == Kind::spiking || group.kind == Kind::leaky;
        if (group.kind == Kind::input) moves = inputs_[input++].per_step;
        for (const Edge<T>& edge : group.edges) {
          moves |= edge.delay > 0 || activity_[edge.source].steps > 1;
        }
        activity_[g].steps = moves ? request_.steps : 1;
      }
    }
  }

  void run(const Stage& stage) {
    for (std::size_t g = stage.first; g < stage.end; ++g) {
      const Group<T>& group = plan_.groups[g];
      const std::size_t blocks = samples_ * group.shape.pixels() * group.shape.blocks();
      if (group.kind == Kind::spiking) {
        activity_[g].masks.reserve(activity_[g].steps * blocks);
      } else {
        activity_[g].values.reserve(activity_[g].steps * blocks * kLanes);
      }
      if (stage.loop) activity_[g].states.reserve(blocks);
    }
    const std::size_t steps = activity_[stage.first].steps, window = stage.loop ? 1 : steps;
    for (std::size_t begin = 0; begin < steps; begin += window) {
      for (std::size_t g = stage.first; g < stage.end; ++g) compute(g, begin, begin + window);
    }
    for (std::size_t g = stage.first; g < stage.end; ++g) harvest(g);
  }

  std::size_t tile_samples() const {
    std::size_t bytes = 1, events = 1;
    for (const Stage& stage : plan_.stages) {
      for (std::size_t g = stage.first; g < stage.end; ++g) {
        const Group<T>& group = plan_.groups[g];
        const std::size_t blocks = group.shape.pixels() * group.shape.blocks();
        const std::size_t words = activity_[g].steps * blocks;
        bytes += group.kind == Kind::spiking ? words * sizeof(uint64_t)
                 : group.kind == Kind::input ? activity_[g].steps * group.shape.size() * sizeof(T)
                                             : words * kLanes * sizeof(T);
        if (stage.loop) bytes += blocks * sizeof(State<T>);
        events = std::max(events, activity_[g].steps * group.shape.size());
      }
    }
    const std::size_t most = std::numeric_limits<uint32_t>::max() / 2;
    if (events > most) {
      throw std::invalid_argument("steps: " + std::to_string(request_.steps) +
                                  " steps of this network are more than one run can hold");
    }
    const std::size_t fit = std::min({kTileBytes / bytes, kLargestTile, most / events});
    const std::size_t chosen = request_.tile != 0 ? std::min(request_.tile, most / events) : fit;
    return std::max<std::size_t>(chosen, 1);
  }

  // Copies the tile's frames, so that nobody can change them between check and use.
  void load(std::size_t g, const Frames<T>& input) {
    const Group<T>& group = plan_.groups[g];
    const std::size_t size = group.shape.size(), steps = activity_[g].steps;
    T* to = activity_[g].values.reserve(steps * samples_ * size);
    for (std::size_t t = 0; t < steps; ++t) {
      for (std::size_t n = 0; n < samples_; ++n, to += size) {
        const T* from = input.data + (t * request_.batch + first_ + n) * size;
        std::copy_n(from, size, to);
        if (!std::all_of(to, to + size, [&](T x) { return allowed(x, group.limit); })) {
          throw std::invalid_argument("input: sample " + std::to_string(first_ + n) +
                                      " holds a value that is not finite or beyond the limit");
        }
      }
    }
  }

  Source<T> source_of(std::size_t g) {
    const Group<T>& group = plan_.groups[g];
    Source<T> source;
    source.words = group.shape.blocks();
    source.pixels = group.shape.pixels();
    source.channels = group.shape.channels;
    source.steps = activity_[g].steps;
    if (group.kind == Kind::spiking) {
      source.masks = activity_[g].masks.buffer.data();
      return source;
    }
    source.values = activity_[g].values.buffer.data();
    const std::size_t lanes = group.shape.blocks() * kLanes;
    source.padded = group.kind != Kind::input;
    source.strides = source.padded ? Strides{source.pixels * lanes, lanes, 1}
                                   : Strides{group.shape.size(), 1, source.pixels};
    return source;
  }

  // Of the frames that the window begin..end reads.
  void decode_events(EdgeTask<T>& task, EventList<T>& list, const Slab& slab, std::size_t begin,
                     std::size_t end) {
    if (list.first == slab.first && list.last == slab.last) return;
    list.first = slab.first;
    list.last = slab.last;
    const Source<T>& source = task.source;
    const std::size_t delay = task.edge->delay;
    const bool still = source.steps == 1;
    const std::size_t from = still || begin < delay ? 0 : begin - delay;
    const std::size_t to = end <= delay ? 0 : still ? 1 : end - delay;
    const std::size_t first_frame = from * samples_;
    const Scan scan{(to - from) * samples_, source.pixels,
                    static_cast<std::size_t>(task.edge->geometry.width), slab.first, slab.last};
    // One entry of slack: graded decoding writes before it counts.
    const std::size_t most = scan.frames * scan.pixels * (slab.last - slab.first) + 1;
    uint32_t* index = list.index.reserve(most);
    uint32_t* start = list.start.reserve(scan.frames * scan.pixels + 1);
    T* value = nullptr;
    if (source.masks != nullptr) {
      const uint64_t* masks = source.masks + first_frame * source.pixels * source.words;
      plan_.kernels->masks(masks, source.words, scan, index, start);
    } else {
      value = list.value.reserve(most);
      const T* values = source.values + first_frame * source.strides.frame;
      decode(*plan_.kernels, values, source.strides, scan, index, value, start);
    }
    task.events = {index, value, start, first_frame};
  }

  std::size_t first_of(std::size_t recorded) const {
    return recorded > first_ ? std::min(recorded - first_, samples_) : 0;
  }

  // The steps begin..end of a group.
  void compute(std::size_t g, std::size_t begin, std::size_t end) {
    const Group<T>& group = plan_.groups[g];
    Activity<T>& activity = activity_[g];
    const std::size_t pixels = group.shape.pixels(), steps = end - begin;
    BlockTask<T> task;
    task.group = &group;
    task.samples = samples_;
    task.begin = begin;
    task.end = end;
    task.masks = activity.masks.buffer.data();
    task.values = activity.values.buffer.data();
    State<T>* states = activity.states.buffer.data();
    std::vector<EdgeTask<T>> edges = edge_tasks(group);
    task.edges = edges.data();
    task.edge_count = edges.size();
    task.active = active_.reserve(steps * kLanes);
    task.currents_of = records_[g].currents != nullptr ? first_of(request_.currents) : 0;
    task.membranes_of = records_[g].membranes != nullptr ? first_of(request_.membranes) : 0;
    int64_t overflows = 0;
    if (records_[g].overflows != nullptr) task.overflows = &overflows;
    task.currents = currents_.reserve(task.currents_of * steps * pixels * kLanes);
    task.membranes = membranes_.reserve(task.membranes_of * steps * pixels * kLanes);
    for (task.block = 0; task.block < group.shape.blocks(); ++task.block) {
      if (states != nullptr) task.states = states + task.block * samples_ * pixels;
      for (std::size_t e = 0; e < edges.size(); ++e) {
        const Edge<T>& edge = *edges[e].edge;
        if (!edge.bias.empty()) edges[e].bias = edge.bias.data() + task.block * kLanes;
        if (edge.op != Op::linear) continue;
        const Slab& slab = edge.slabs[task.block];
        decode_events(edges[e], lists_[e], slab, begin, end);
        edges[e].weights = edge.weights.data() + slab.offset;
        edges[e].channels = slab.last - slab.first;
      }
      std::fill_n(task.active, steps * kLanes, 0);
      const BlockKernels& kernels = plan_.kernels->of(group.shape.channels - task.block * kLanes);
      kernel_of(kernels, group, task.overflows != nullptr)(task);
      keep_block(g, task);
    }
    if (task.overflows != nullptr) {
      // A group that does not change was computed once, and stands for every step.
      const std::size_t times = activity.steps == 1 ? request_.steps : 1;
      *records_[g].overflows += overflows * static_cast<int64_t>(times);
    }
  }

  std::vector<EdgeTask<T>> edge_tasks(const Group<T>& group) {
    std::vector<EdgeTask<T>> tasks(group.edges.size());
    if (lists_.size() < tasks.size()) lists_.resize(tasks.size());
    std::size_t taps = 0;
    for (const Edge<T>& edge : group.edges) taps += edge.geometry.taps();
    Tap* tap = taps_.reserve(taps);
    T* kept = kept_.reserve(tasks.size() * kLanes);
    for (std::size_t e = 0; e < tasks.size(); ++e) {
      const Edge<T>& edge = group.edges[e];
      tasks[e].edge = &edge;
      tasks[e].source = source_of(edge.source);
      tasks[e].kept = kept + e * kLanes;
      if (edge.op == Op::linear || edge.op == Op::pool) tasks[e].taps = tap;
      tap += edge.geometry.taps();
      lists_[e].first = lists_[e].last = 0;
    }
    return tasks;
  }

  // Active updates, currents and membranes of the block just done.
  void keep_block(std::size_t g, const BlockTask<T>& task) {
    const GroupRecord<T>& record = records_[g];
    if (record.active != nullptr) {
      for (std::size_t t = task.begin; t < task.end; ++t) {
        const int32_t* active = task.active + (t - task.begin) * kLanes;
        record.active[t] = std::accumulate(active, active + kLanes, record.active[t]);
      }
    }
    const std::size_t end = activity_[g].steps == 1 ? request_.steps : task.end;
    keep_lanes(task, end, task.currents, task.currents_of, request_.currents, record.currents);
    keep_lanes(task, end, task.membranes, task.membranes_of, request_.membranes, record.membranes);
  }

  // A window of one step stands for all up to `end`.
  void keep_lanes(const BlockTask<T>& task, std::size_t end, const T* lanes, std::size_t samples,
                  std::size_t recorded, T* out) const {
    const Shape& shape = task.group->shape;
    const std::size_t pixels = shape.pixels(), from = task.block * kLanes;
    const std::size_t channels = std::min(kLanes, shape.channels - from);
    for (std::size_t n = 0; n < samples; ++n) {
      for (std::size_t t = task.begin; t < end; ++t) {
        const std::size_t frame = (std::min(t, task.end - 1) - task.begin) * samples + n;
        T* to = out + ((t * recorded) + first_ + n) * shape.size() + from * pixels;
        for (std::size_t p = 0; p < pixels; ++p) {
          for (std::size_t c = 0; c < channels; ++c) {
            to[c * pixels + p] = lanes[(frame * pixels + p) * kLanes + c];
          }
        }
      }
    }
  }

  // Spikes, counts and outputs of a group, from channels-last to C, H, W order.
  void harvest(std::size_t g) {
    const Group<T>& group = plan_.groups[g];
    if (group.kind == Kind::relay) return;
    const std::size_t size = group.shape.size();
    const bool still = activity_[g].steps == 1;
    const std::size_t bytes = (size + 7) / 8, spikes = request_.spikes;
    const std::size_t kept = records_[g].spikes != nullptr ? first_of(spikes) : 0;
    for (std::size_t n = 0; n < samples_; ++n) {
      for (std::size_t t = 0; t < request_.steps; ++t) {
        const std::size_t frame = (still ? 0 : t) * samples_ + n;
        int64_t* fired = records_[g].fired + t * size;
        T* out = g == plan_.output ? outputs_ + (t * request_.batch + first_ + n) * size : nullptr;
        if (group.kind == Kind::spiking) {
          uint8_t* bits =
              n < kept ? records_[g].spikes + (t * spikes + first_ + n) * bytes : nullptr;
          harvest_spikes(g, frame, fired, bits, out);
        } else {
          harvest_values(g, frame, fired, out);
        }
      }
    }
  }

  void harvest_spikes(std::size_t g, std::size_t frame, int64_t* fired, uint8_t* bits, T* out) {
    const Shape& shape = plan_.groups[g].shape;
    const std::size_t pixels = shape.pixels(), blocks = shape.blocks();
    const uint64_t* masks = activity_[g].masks.buffer.data() + frame * pixels * blocks;
    for (std::size_t p = 0; p < pixels; ++p) {
      for (std::size_t b = 0; b < blocks; ++b) {
        for (uint64_t word = *masks++; word != 0; word &= word - 1) {
          const std::size_t c = b * kLanes + static_cast<std::size_t>(__builtin_ctzll(word));
          const std::size_t i = c * pixels + p;
          ++fired[i];
          if (bits != nullptr) bits[i / 8] = static_cast<uint8_t>(bits[i / 8] | 1u << (i % 8));
          if (out != nullptr) out[i] = T{1};
        }
      }
    }
  }

  void harvest_values(std::size_t g, std::size_t frame, int64_t* fired, T* out) {
    const Shape& shape = plan_.groups[g].shape;
    const std::size_t pixels = shape.pixels(), lanes = shape.blocks() * kLanes;
    const T* values = activity_[g].values.buffer.data() + frame * pixels * lanes;
    for (std::size_t p = 0; p < pixels; ++p) {
      for (std::size_t c = 0; c < shape.channels; ++c) {
        const T value = values[p * lanes + c];
        fired[c * pixels + p] += value != T{0};
        if (out != nullptr) out[c * pixels + p] = value;
      }
    }
  }

  const Plan<T>& plan_;
  const Request& request_;
  const std::vector<Frames<T>>& inputs_;
  const std::vector<GroupRecord<T>>& records_;
  T* outputs_;
  std::vector<Activity<T>> activity_;
  std::vector<EventList<T>> lists_;
  Scratch<Tap> taps_;
  Scratch<T> kept_, currents_, membranes_;
  Scratch<int32_t> active_;
  std::size_t first_ = 0, samples_ = 0;
};

}  // namespace

template <class T>
void execute(const Plan<T>& plan, const Request& request, const std::vector<Frames<T>>& inputs,
             const std::vector<GroupRecord<T>>& records, T* outputs) {
  Run<T>(plan, request, inputs, records, outputs).all();
}

template void execute<float>(const Plan<float>&, const Request&, const std::vector<Frames<float>>&,
                             const std::vector<GroupRecord<float>>&, float*);
template void execute<int32_t>(const Plan<int32_t>&, const Request&,
                               const std::vector<Frames<int32_t>>&,
                               const std::vector<GroupRecord<int32_t>>&, int32_t*);

}  // namespace snnpipe
