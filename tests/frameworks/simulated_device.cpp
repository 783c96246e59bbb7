// A PrivateUse1 backend of PyTorch whose device is this machine's own processor: what makes a real accelerator hard is real here.
//
// Kernels and copies wait in streams, which threads work off; what is not ordered by a stream or an event happens in any order.
// The memory has addresses that no program can read. It is given out again as CUDA's allocator does: at once on the stream that it
// belongs to, and it is overwritten when it is freed. A copy from or to page-locked memory is done later, one of pageable memory
// or between layouts at once. `pause` lets every stream wait before each task, so that a race is lost each time.

#include <ATen/ATen.h>
#include <ATen/EmptyTensor.h>
#include <ATen/core/CachingHostAllocator.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/native/Resize.h>
#include <ATen/native/TensorFactories.h>
#include <ATen/ops/as_strided_cpu_dispatch.h>
#include <ATen/ops/set_cpu_dispatch.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/extension.h>
#include <torch/library.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <thread>

namespace sim {

constexpr int kDevices = 2;
constexpr uintptr_t kAway = uintptr_t{1} << 47;  // no address of a process: to read there ends it

std::atomic<int> pause_us{0};
std::atomic<int64_t> memory_limit{INT64_MAX}, memory_used{0}, memory_peak{0};
std::atomic<bool> can_pin{true};
std::atomic<int64_t> copies_out{0}, bytes_out{0}, pageable_out{0}, copies_in{0}, bytes_in{0}, pageable_in{0};

// ---------------------------------------------------------------------------------------------------------- streams and events
struct Mark {  // one recording of an event
  std::mutex mutex;
  std::condition_variable changed;
  bool reached = false;

  void reach() {
    std::lock_guard<std::mutex> lock(mutex);
    reached = true;
    changed.notify_all();
  }
  void wait() {
    std::unique_lock<std::mutex> lock(mutex);
    changed.wait(lock, [this] { return reached; });
  }
  bool is_reached() {
    std::lock_guard<std::mutex> lock(mutex);
    return reached;
  }
};
using MarkPtr = std::shared_ptr<Mark>;

class Queue {
 public:
  Queue() : worker_([this] { work(); }) { worker_.detach(); }

  void add(std::function<void()> task) {
    std::lock_guard<std::mutex> lock(mutex_);
    tasks_.push_back(std::move(task));
    changed_.notify_one();
  }
  MarkPtr mark() {
    auto mark = std::make_shared<Mark>();
    add([mark] { mark->reach(); });
    return mark;
  }
  void synchronize() { mark()->wait(); }

 private:
  void work() {
    c10::InferenceMode plain;
    for (;;) {
      std::function<void()> task;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        changed_.wait(lock, [this] { return !tasks_.empty(); });
        task = std::move(tasks_.front());
        tasks_.pop_front();
      }
      if (int us = pause_us) std::this_thread::sleep_for(std::chrono::microseconds(us));
      task();
    }
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> tasks_;
  std::thread worker_;
};

std::mutex queues_mutex;
std::vector<Queue*> queues[kDevices];  // the first is the default stream; they live as long as the process
thread_local int current_device = 0;
thread_local int64_t current_stream[kDevices] = {};

Queue& queue(int device, int64_t stream) {
  std::lock_guard<std::mutex> lock(queues_mutex);
  auto& all = queues[device];
  while (all.size() <= static_cast<size_t>(stream)) all.push_back(new Queue());
  return *all[stream];
}
Queue& here(int device) { return queue(device, current_stream[device]); }

int64_t new_stream(int device) {
  queue(device, 0);
  std::lock_guard<std::mutex> lock(queues_mutex);
  queues[device].push_back(new Queue());
  return static_cast<int64_t>(queues[device].size()) - 1;
}
void synchronize(int device) {
  std::vector<Queue*> all;
  {
    std::lock_guard<std::mutex> lock(queues_mutex);
    all = queues[device];
  }
  for (auto* one : all) one->synchronize();
}

using Event = MarkPtr;  // behind the void* of the interface

// ------------------------------------------------------------------------------------------------------------- device's memory
void* real(const void* pointer) { return reinterpret_cast<void*>(reinterpret_cast<uintptr_t>(pointer) - kAway); }

struct Block {
  void* memory;
  size_t size;
  int device;
  int64_t stream;
  std::vector<std::pair<int, int64_t>> users;  // of record_stream
};

struct DeviceAllocator final : c10::Allocator {
  std::mutex mutex;
  std::multimap<std::tuple<int, int64_t, size_t>, Block*> free;
  std::map<void*, Block*> held;

  c10::DataPtr allocate(size_t nbytes) override {
    const int device = current_device;
    const c10::Device where(c10::DeviceType::PrivateUse1, static_cast<c10::DeviceIndex>(device));
    if (nbytes == 0) return {nullptr, nullptr, &release, where};
    size_t size = 512;
    while (size < nbytes) size *= 2;
    std::lock_guard<std::mutex> lock(mutex);
    Block* block = nullptr;
    auto found = free.find({device, current_stream[device], size});
    if (found != free.end()) {
      block = found->second;
      free.erase(found);
    } else {
      TORCH_CHECK_WITH(OutOfMemoryError, memory_used + static_cast<int64_t>(size) <= memory_limit, "sim out of memory");
      block = new Block{std::malloc(size), size, device, current_stream[device], {}};
      memory_used += static_cast<int64_t>(size);
      memory_peak = std::max<int64_t>(memory_peak, memory_used);
    }
    void* visible = reinterpret_cast<void*>(reinterpret_cast<uintptr_t>(block->memory) + kAway);
    held[visible] = block;
    return {visible, visible, &release, where};
  }
  static void release(void* pointer);
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, std::size_t count) const override {
    synchronize(current_device);
    std::memcpy(real(to), real(from), count);
  }
};
DeviceAllocator& allocator() {
  static auto* one = new DeviceAllocator();
  return *one;
}
void DeviceAllocator::release(void* pointer) {
  if (!pointer) return;
  auto& all = allocator();
  std::lock_guard<std::mutex> lock(all.mutex);
  Block* block = all.held.at(pointer);
  all.held.erase(pointer);
  Queue& own = queue(block->device, block->stream);
  for (auto& [device, stream] : block->users) {
    auto mark = queue(device, stream).mark();
    own.add([mark] { mark->wait(); });
  }
  block->users.clear();
  own.add([memory = block->memory, size = block->size] { std::memset(memory, 0xDD, size); });  // as its next owner would
  all.free.insert({{block->device, block->stream, block->size}, block});
}
void empty_cache() {
  for (int device = 0; device < kDevices; ++device) synchronize(device);
  auto& all = allocator();
  std::lock_guard<std::mutex> lock(all.mutex);
  for (auto& [_, block] : all.free) {
    memory_used -= static_cast<int64_t>(block->size);
    std::free(block->memory);
    delete block;
  }
  all.free.clear();
}

// --------------------------------------------------------------------------------------------------------- page-locked memory
std::mutex pinned_mutex;
std::map<uintptr_t, size_t> pinned;

bool is_pinned(const void* pointer, size_t nbytes = 1) {
  std::lock_guard<std::mutex> lock(pinned_mutex);
  const auto at = reinterpret_cast<uintptr_t>(pointer);
  auto after = pinned.upper_bound(at);
  if (after == pinned.begin()) return false;
  --after;
  return at + nbytes <= after->first + after->second;
}

struct HostAllocator final : at::HostAllocator {
  static void release(void* pointer) {
    std::lock_guard<std::mutex> lock(pinned_mutex);
    pinned.erase(reinterpret_cast<uintptr_t>(pointer));
    std::free(pointer);
  }
  c10::DataPtr allocate(size_t nbytes) override {
    TORCH_CHECK(can_pin, "sim cannot lock pages");
    void* memory = nbytes ? std::aligned_alloc(4096, (nbytes + 4095) / 4096 * 4096) : nullptr;
    if (memory) {
      std::lock_guard<std::mutex> lock(pinned_mutex);
      pinned[reinterpret_cast<uintptr_t>(memory)] = nbytes;
    }
    return {memory, memory, &release, c10::Device(c10::DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, std::size_t count) const override { std::memcpy(to, from, count); }
  bool record_event(void*, void*, c10::Stream) override { return true; }
  void empty_cache() override {}
  at::HostStats get_stats() override { return {}; }
  void reset_accumulated_stats() override {}
  void reset_peak_stats() override {}
};
HostAllocator host_allocator;
REGISTER_HOST_ALLOCATOR(at::kPrivateUse1, &host_allocator)

// ----------------------------------------------------------------------------------------------------------------- interfaces
struct Guard final : c10::impl::DeviceGuardImplInterface {
  static constexpr auto kType = c10::DeviceType::PrivateUse1;
  static c10::Stream stream_of(c10::Device d) {
    const int index = d.has_index() ? d.index() : current_device;
    const c10::Device where(kType, static_cast<c10::DeviceIndex>(index));
    return c10::Stream(c10::Stream::UNSAFE, where, current_stream[index]);
  }
  c10::DeviceType type() const override { return kType; }
  c10::Device exchangeDevice(c10::Device d) const override {
    auto before = getDevice();
    setDevice(d);
    return before;
  }
  c10::Device getDevice() const override { return {kType, static_cast<c10::DeviceIndex>(current_device)}; }
  void setDevice(c10::Device d) const override {
    TORCH_CHECK(d.index() < kDevices, "no such device");
    if (d.index() >= 0) current_device = d.index();
  }
  void uncheckedSetDevice(c10::Device d) const noexcept override {
    if (d.index() >= 0) current_device = d.index();
  }
  c10::Stream getStream(c10::Device d) const override { return stream_of(d); }
  c10::Stream getDefaultStream(c10::Device d) const override { return c10::Stream(c10::Stream::UNSAFE, d, 0); }
  c10::Stream getStreamFromGlobalPool(c10::Device d, bool) const override { return getNewStream(d); }
  c10::Stream getNewStream(c10::Device d, int = 0) const override {  // from a few, in turns, as CUDA's
    static std::atomic<int> next{0};
    static std::mutex mutex;
    static std::vector<int64_t> pool[kDevices];
    const int index = d.has_index() ? d.index() : current_device;
    std::lock_guard<std::mutex> lock(mutex);
    auto& mine = pool[index];
    if (mine.size() < 8) mine.push_back(new_stream(index));
    const c10::Device where(kType, static_cast<c10::DeviceIndex>(index));
    return c10::Stream(c10::Stream::UNSAFE, where, mine[next++ % mine.size()]);
  }
  c10::Stream exchangeStream(c10::Stream s) const override {
    auto before = stream_of(s.device());
    current_stream[s.device_index()] = s.id();
    return before;
  }
  static Queue& queue_of(const c10::Stream& s) { return queue(s.device_index(), s.id()); }
  void destroyEvent(void* event, const c10::DeviceIndex) const noexcept override { delete static_cast<Event*>(event); }
  void record(void** event, const c10::Stream& s, const c10::DeviceIndex, const c10::EventFlag) const override {
    if (!*event) *event = new Event();
    *static_cast<Event*>(*event) = queue_of(s).mark();
  }
  void block(void* event, const c10::Stream& s) const override {
    if (!event) return;
    auto mark = *static_cast<Event*>(event);
    queue_of(s).add([mark] { mark->wait(); });
  }
  bool queryEvent(void* event) const override { return !event || (*static_cast<Event*>(event))->is_reached(); }
  c10::DeviceIndex deviceCount() const noexcept override { return kDevices; }
  c10::DeviceCapability getDeviceCapability(c10::Device) const override { return {}; }
  bool queryStream(const c10::Stream& s) const override { return queue_of(s).mark()->is_reached(); }
  void synchronizeStream(const c10::Stream& s) const override { queue_of(s).synchronize(); }
  void synchronizeEvent(void* event) const override {
    if (event) (*static_cast<Event*>(event))->wait();
  }
  void synchronizeDevice(const c10::DeviceIndex index) const override { synchronize(index); }
  void recordDataPtrOnStream(const c10::DataPtr& data, const c10::Stream& s) const override {
    auto& all = allocator();
    std::lock_guard<std::mutex> lock(all.mutex);
    auto found = all.held.find(data.get());
    if (found != all.held.end()) found->second->users.emplace_back(s.device_index(), s.id());
  }
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard)

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return kDevices; }
  void setCurrentDevice(c10::DeviceIndex d) const override { current_device = d; }
  c10::DeviceIndex getCurrentDevice() const override { return static_cast<c10::DeviceIndex>(current_device); }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex d) const override {
    auto before = getCurrentDevice();
    current_device = d;
    return before;
  }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex d) const override {
    return d < 0 ? getCurrentDevice() : exchangeDevice(d);
  }
  bool isPinnedPtr(const void* data) const override { return is_pinned(data); }
  at::Allocator* getPinnedMemoryAllocator() const override { return &host_allocator; }
  at::Device getDeviceFromPtr(void*) const override { return {c10::DeviceType::PrivateUse1, 0}; }
  void resizePrivateUse1Bytes(const c10::Storage& storage, size_t) const override {
    TORCH_CHECK(false, "no storage of ", storage.nbytes(), " bytes can grow here");
  }
};

// -------------------------------------------------------------------------------------------------------------------- kernels
at::Tensor on_host(const at::Tensor& t) {  // the same memory, for the thread of a stream
  auto* memory = t.numel() ? real(t.const_data_ptr()) : nullptr;
  auto made = at::from_blob(memory, t.sizes(), t.strides(), at::TensorOptions().dtype(t.dtype()));
  if (t.is_conj()) made._set_conj(true);
  if (t.is_neg()) made._set_neg(true);
  return made;
}
template <class Kernel>
void launch(const at::Tensor& on, Kernel kernel) {
  here(on.device().index()).add(std::move(kernel));
}
bool is_plain(const at::Tensor& a, const at::Tensor& b) {
  return a.is_contiguous() && b.is_contiguous() && a.dtype() == b.dtype() && !a.is_conj() && !a.is_neg() && !b.is_conj() &&
      !b.is_neg() && a.sizes() == b.sizes();
}

at::Tensor empty(c10::IntArrayRef size, std::optional<c10::ScalarType> dtype, std::optional<c10::Layout>,
                 std::optional<c10::Device> device, std::optional<bool>, std::optional<c10::MemoryFormat> format) {
  const c10::DeviceGuard guard(c10::device_or_default(device));
  return at::detail::empty_generic(size, &allocator(), c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                   c10::dtype_or_default(dtype), format);
}
at::Tensor empty_strided(c10::IntArrayRef size, c10::IntArrayRef stride, std::optional<c10::ScalarType> dtype,
                         std::optional<c10::Layout>, std::optional<c10::Device> device, std::optional<bool>) {
  const c10::DeviceGuard guard(c10::device_or_default(device));
  return at::detail::empty_strided_generic(size, stride, &allocator(), c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                           c10::dtype_or_default(dtype));
}
at::Tensor as_strided(const at::Tensor& self, c10::SymIntArrayRef size, c10::SymIntArrayRef stride,
                      std::optional<c10::SymInt> offset) {
  return at::cpu::as_strided_symint(self, size, stride, offset);
}
at::Tensor reshape_alias(const at::Tensor& self, c10::SymIntArrayRef size, c10::SymIntArrayRef stride) {
  return at::native::_reshape_alias(self, C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride));
}
at::Tensor view(const at::Tensor& self, c10::SymIntArrayRef size) {
  return at::native::view(self, C10_AS_INTARRAYREF_SLOW(size));
}
const at::Tensor& resize(const at::Tensor& self, c10::SymIntArrayRef size, std::optional<at::MemoryFormat> format) {
  return at::native::resize_(self, C10_AS_INTARRAYREF_SLOW(size), format);
}
at::Tensor& set_storage(at::Tensor& self, at::Storage source, int64_t offset, c10::IntArrayRef size, c10::IntArrayRef stride) {
  return at::cpu::set_(self, std::move(source), offset, size, stride);
}
at::Tensor& set_tensor(at::Tensor& self, const at::Tensor& source) { return at::native::set_tensor_(self, source); }

void copy_out(const at::Tensor& from, const at::Tensor& to, bool later) {
  const auto index = from.device().index();
  if (!is_plain(from, to)) {  // arranged on the device, then copied, then converted here: never later, as with CUDA
    auto arranged = at::empty(from.sizes(), from.options().memory_format(at::MemoryFormat::Contiguous));
    launch(from, [a = on_host(arranged), b = on_host(from)]() mutable { a.copy_(b); });
    auto host = at::empty(from.sizes(), from.options().device(at::kCPU));
    copy_out(arranged, host, false);
    to.copy_(host);
    return;
  }
  const size_t nbytes = from.nbytes();
  const bool locked = is_pinned(to.const_data_ptr(), nbytes);
  ++copies_out;
  bytes_out += static_cast<int64_t>(nbytes);
  pageable_out += !locked;
  launch(from, [a = to.mutable_data_ptr(), b = real(from.const_data_ptr()), nbytes] { std::memcpy(a, b, nbytes); });
  if (!later || !locked) here(index).synchronize();
}
void copy_in(const at::Tensor& from, const at::Tensor& to, bool later) {
  const auto index = to.device().index();
  if (!is_plain(from, to)) {
    auto dense = from.to(to.scalar_type()).contiguous();
    if (dense.is_conj() || dense.is_neg()) dense = dense.resolve_conj().resolve_neg();
    if (!is_plain(dense, to)) {
      dense = dense.expand(to.sizes()).contiguous();
      auto arranged = at::empty(to.sizes(), to.options().memory_format(at::MemoryFormat::Contiguous));
      copy_in(dense, arranged, later && dense.const_data_ptr() == from.const_data_ptr());
      launch(to, [a = on_host(to), b = on_host(arranged)]() mutable { a.copy_(b); });
    } else {
      copy_in(dense, to, false);
    }
    if (!later) here(index).synchronize();
    return;
  }
  const size_t nbytes = from.nbytes();
  const bool locked = is_pinned(from.const_data_ptr(), nbytes);
  ++copies_in;
  bytes_in += static_cast<int64_t>(nbytes);
  pageable_in += !locked;
  auto* target = real(to.mutable_data_ptr());
  if (locked) {
    launch(to, [target, source = from.const_data_ptr(), nbytes] { std::memcpy(target, source, nbytes); });
  } else {  // what is pageable has been read when the call returns
    auto taken = std::make_shared<std::vector<char>>(nbytes);
    std::memcpy(taken->data(), from.const_data_ptr(), nbytes);
    launch(to, [target, taken] { std::memcpy(target, taken->data(), taken->size()); });
  }
  if (!later) here(index).synchronize();
}
at::Tensor copy_from(const at::Tensor& from, const at::Tensor& to, bool later) {
  if (to.numel() == 0) return to;
  if (from.is_cpu()) {
    copy_in(from, to, later);
  } else if (to.is_cpu()) {
    copy_out(from, to, later);
  } else if (from.device() == to.device()) {
    launch(to, [a = on_host(to), b = on_host(from)]() mutable { a.copy_(b); });
  } else {
    here(from.device().index()).synchronize();
    here(to.device().index()).synchronize();
    on_host(to).copy_(on_host(from));
  }
  return to;
}
at::Tensor copy_from_and_resize(const at::Tensor& from, const at::Tensor& to) {
  if (to.sizes() != from.sizes()) at::native::resize_(to, from.sizes(), std::nullopt);
  return copy_from(from, to, false);
}
at::Scalar scalar(const at::Tensor& self) {
  here(self.device().index()).synchronize();
  return on_host(self).resolve_conj().item();
}
at::Tensor& fill(at::Tensor& self, const at::Scalar& value) {
  launch(self, [a = on_host(self), value]() mutable { a.fill_(value); });
  return self;
}
at::Tensor& zero(at::Tensor& self) { return fill(self, 0); }
at::Tensor& add(at::Tensor& self, const at::Tensor& other, const at::Scalar& alpha) {
  auto b = other.is_cpu() ? other.clone() : on_host(other);
  launch(self, [a = on_host(self), b, alpha]() mutable { a.add_(b, alpha); });
  return self;
}
at::Tensor& mul(at::Tensor& self, const at::Tensor& other) {
  auto b = other.is_cpu() ? other.clone() : on_host(other);
  launch(self, [a = on_host(self), b]() mutable { a.mul_(b); });
  return self;
}
at::Tensor& cat_out(const at::ITensorListRef& tensors, int64_t dim, at::Tensor& out) {
  std::vector<at::Tensor> parts;
  for (const auto& one : tensors) parts.push_back(on_host(one));
  launch(out, [parts, dim, a = on_host(out)]() mutable { at::cat_out(a, parts, dim); });
  return out;
}
void record_stream(at::Tensor& self, c10::Stream stream) { Guard().recordDataPtrOnStream(self.storage().data_ptr(), stream); }
void fallback(const c10::OperatorHandle& op, torch::jit::Stack* stack) { at::native::cpu_fallback(op, stack); }

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", empty);
  m.impl("empty_strided", empty_strided);
  m.impl("as_strided", as_strided);
  m.impl("_reshape_alias", reshape_alias);
  m.impl("view", view);
  m.impl("resize_", resize);
  m.impl("set_.source_Storage_storage_offset", set_storage);
  m.impl("set_.source_Tensor", set_tensor);
  m.impl("_copy_from", copy_from);
  m.impl("_copy_from_and_resize", copy_from_and_resize);
  m.impl("_local_scalar_dense", scalar);
  m.impl("fill_.Scalar", fill);
  m.impl("zero_", zero);
  m.impl("add_.Tensor", add);
  m.impl("mul_.Tensor", mul);
  m.impl("cat.out", cat_out);
  m.impl("record_stream", record_stream);
}
// The copy resolves these itself: else each of them would be resolved by another copy, without end.
TORCH_LIBRARY_IMPL(aten, Conjugate, m) { m.impl("_copy_from", torch::CppFunction::makeFallthrough()); }
TORCH_LIBRARY_IMPL(aten, Negative, m) { m.impl("_copy_from", torch::CppFunction::makeFallthrough()); }
TORCH_LIBRARY_IMPL(_, PrivateUse1, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>()); }

}  // namespace sim

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  c10::SetAllocator(c10::DeviceType::PrivateUse1, &sim::allocator());
  at::RegisterPrivateUse1HooksInterface(new sim::Hooks());
  m.def("device_count", [] { return sim::kDevices; });
  m.def("current_device", [] { return sim::current_device; });
  m.def("set_device", [](int device) { sim::current_device = device; });
  m.def("pause", [](double seconds) { sim::pause_us = static_cast<int>(seconds * 1e6); });
  m.def("limit_memory", [](std::optional<int64_t> nbytes) {
    sim::empty_cache();
    sim::memory_limit = nbytes ? sim::memory_used + *nbytes : INT64_MAX;
    sim::memory_peak = sim::memory_used.load();
  }, "Bytes that may be allocated beyond what is in use now.", pybind11::call_guard<pybind11::gil_scoped_release>());
  m.def("memory_used", [] { return sim::memory_used.load(); });
  m.def("memory_peak", [] { return sim::memory_peak.load(); });
  m.def("allow_pinning", [](bool allowed) { sim::can_pin = allowed; });
  m.def("pinned_bytes", [] {
    std::lock_guard<std::mutex> lock(sim::pinned_mutex);
    size_t sum = 0;
    for (auto& [_, size] : sim::pinned) sum += size;
    return sum;
  });
  m.def("copies", [] {
    return std::map<std::string, int64_t>{{"out", sim::copies_out}, {"bytes_out", sim::bytes_out},
                                          {"pageable_out", sim::pageable_out}, {"in", sim::copies_in},
                                          {"bytes_in", sim::bytes_in}, {"pageable_in", sim::pageable_in}};
  });
}
