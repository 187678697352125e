/* An ALSA capture device without hardware: it plays 16-bit samples in real time, and a test can take it away.
 *
 * In alsa.conf:  pcm_type.testmic { lib "/…/libasound_module_pcm_testmic.so" }
 *                pcm.desk { type testmic wave "/…/desk.s16" control "/…/desk.control" rate 48000 channels 1 }
 *
 * What is heard follows the clock, as in a room: frame k of a capture that starts at time t is the wave at
 * (t - speech begins) + k / rate, and silence before and after it. So audio missed during an overrun, or while the
 * device was unplugged, is truly missed, and a test can tell how much by looking at the samples.
 *
 * `control` is a file both sides map into memory; see struct control. The test sets fault and begins_ns.
 */
#include <alsa/asoundlib.h>
#include <alsa/pcm_external.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <time.h>

/* UNPLUGGED: as the kernel's drivers do it. BROKEN: errors on every call, as some plugins do it; PortAudio 19.6 tries to
 * recover for ever, and its abort hangs. */
enum fault { PLUGGED = 0, UNPLUGGED = 1, STALLED = 2, BROKEN = 3 };

struct control {         /* offsets are known to __init__.py */
    uint32_t fault;      /*  0: one of enum fault */
    uint32_t opened;     /*  4: how often the device was opened for capture and started */
    uint32_t overruns;   /*  8: how often a full buffer was overwritten */
    uint32_t reserved;   /* 12: alignment */
    int64_t begins_ns;   /* 16: CLOCK_MONOTONIC when the wave begins; 0: not yet, all is silence */
};

struct microphone {
    snd_pcm_ioplug_t io; /* ALSA's side */
    volatile struct control *control;
    const int16_t *wave; /* mapped, interleaved */
    size_t wave_bytes, wave_frames;
    unsigned rate, channels;
    int64_t started_ns;  /* 0: not running */
    int64_t froze_ns;    /* when the present stall began; 0: none */
    int64_t frozen_ns;   /* time spent stalled since the start */
    int64_t before_ns;   /* the same before the last stall */
    int overran;
    uint64_t froze_at;   /* frames captured when the last stall began */
};

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int64_t frames_in(const struct microphone *mic, int64_t ns) {
    return (int64_t)((__int128)ns * mic->rate / 1000000000);
}

static int gone(const struct microphone *mic) {
    return mic->control->fault == UNPLUGGED || mic->control->fault == BROKEN;
}

/* Frames captured since the start. The clock of a stalled device stands still. */
static uint64_t captured(struct microphone *mic) {
    int64_t now = now_ns();
    if (!mic->started_ns) return 0;
    if (mic->control->fault == STALLED) {
        if (!mic->froze_ns) {
            mic->froze_ns = now;
            mic->froze_at = (uint64_t)frames_in(mic, now - mic->started_ns - mic->frozen_ns);
        }
        return mic->froze_at;
    }
    if (mic->froze_ns) {
        mic->before_ns = mic->frozen_ns;
        mic->frozen_ns += now - mic->froze_ns;
        mic->froze_ns = 0;
    }
    return (uint64_t)frames_in(mic, now - mic->started_ns - mic->frozen_ns);
}

static int set_timer(const struct microphone *mic, int64_t every_ns) {
    struct timespec t = {every_ns / 1000000000, every_ns % 1000000000};
    struct itimerspec both = {t, t};
    return timerfd_settime(mic->io.poll_fd, 0, &both, NULL) < 0 ? -errno : 0;
}

static int on_prepare(snd_pcm_ioplug_t *io) {
    struct microphone *mic = io->private_data;
    mic->started_ns = mic->froze_ns = mic->frozen_ns = mic->before_ns = 0;
    mic->froze_at = 0;
    mic->overran = 0;
    return gone(mic) ? -ENODEV : 0;
}

static int on_start(snd_pcm_ioplug_t *io) {
    struct microphone *mic = io->private_data;
    int64_t half_period = (int64_t)io->period_size * 500000000 / mic->rate;
    if (gone(mic)) return -ENODEV;
    on_prepare(io);
    mic->started_ns = now_ns();
    mic->control->opened++;
    return set_timer(mic, half_period < 1000000 ? 1000000 : half_period);
}

static int on_stop(snd_pcm_ioplug_t *io) {
    struct microphone *mic = io->private_data;
    mic->started_ns = 0;
    return set_timer(mic, 0);
}

static snd_pcm_sframes_t on_pointer(snd_pcm_ioplug_t *io) {
    struct microphone *mic = io->private_data;
    uint64_t frames;
    if (mic->control->fault == BROKEN) return -ENODEV;
    if (mic->control->fault == UNPLUGGED) return (snd_pcm_sframes_t)(io->appl_ptr % io->buffer_size); /* nothing new */
    frames = captured(mic);
    if (frames > io->appl_ptr + io->buffer_size) {
        if (!mic->overran) mic->control->overruns++;
        mic->overran = 1; /* asked again before it is prepared anew */
        return -EPIPE;
    }
    return (snd_pcm_sframes_t)(frames % io->buffer_size);
}

/* Called again for the same frames at will: what it writes depends on the position only. */
static snd_pcm_sframes_t on_transfer(snd_pcm_ioplug_t *io, const snd_pcm_channel_area_t *areas,
                                     snd_pcm_uframes_t offset, snd_pcm_uframes_t size) {
    struct microphone *mic = io->private_data;
    int16_t *out = (int16_t *)((char *)areas[0].addr + (areas[0].first + areas[0].step * offset) / 8);
    int64_t begins = mic->control->begins_ns;
    size_t bytes = mic->channels * sizeof *out;
    for (snd_pcm_uframes_t i = 0; i < size; i++, out += mic->channels) {
        uint64_t frame = io->appl_ptr + i;
        int64_t stalled_ns = frame < mic->froze_at ? mic->before_ns : mic->frozen_ns;
        int64_t at = frames_in(mic, mic->started_ns - begins + stalled_ns) + (int64_t)frame;
        if (begins && at >= 0 && (uint64_t)at < mic->wave_frames)
            memcpy(out, mic->wave + at * mic->channels, bytes);
        else
            memset(out, 0, bytes);
    }
    return (snd_pcm_sframes_t)size;
}

static int on_poll(snd_pcm_ioplug_t *io, struct pollfd *fds, unsigned count, unsigned short *events) {
    struct microphone *mic = io->private_data;
    uint64_t ticks, frames;
    (void)fds, (void)count;
    if (read(io->poll_fd, &ticks, sizeof ticks) < 0 && errno != EAGAIN) return -errno;
    if (gone(mic)) {
        if (mic->control->fault == UNPLUGGED) snd_pcm_ioplug_set_state(io, SND_PCM_STATE_DISCONNECTED);
        *events = POLLERR;
        return 0;
    }
    frames = captured(mic);
    *events = 0;
    if (frames >= io->appl_ptr + io->period_size) *events |= POLLIN;
    if (frames > io->appl_ptr + io->buffer_size) *events |= POLLERR;
    return 0;
}

static void release(struct microphone *mic) {
    if (mic->io.poll_fd >= 0) close(mic->io.poll_fd);
    if (mic->wave) munmap((void *)mic->wave, mic->wave_bytes);
    if (mic->control) munmap((void *)mic->control, sizeof *mic->control);
    free(mic);
}

static int on_close(snd_pcm_ioplug_t *io) {
    release(io->private_data);
    return 0;
}

static const snd_pcm_ioplug_callback_t callbacks = {
    .start = on_start,       .stop = on_stop,         .prepare = on_prepare,  .pointer = on_pointer,
    .transfer = on_transfer, .poll_revents = on_poll, .close = on_close,
};

/* A whole file in memory; NULL with errno set. */
static void *map(const char *path, int writable, size_t *bytes) {
    struct stat found;
    void *address = NULL;
    int fd = path ? open(path, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC) : (errno = EINVAL, -1);
    if (fd < 0) return NULL;
    if (fstat(fd, &found) == 0 && found.st_size > 0) {
        *bytes = (size_t)found.st_size;
        address = mmap(NULL, *bytes, PROT_READ | (writable ? PROT_WRITE : 0), MAP_SHARED, fd, 0);
        if (address == MAP_FAILED) address = NULL;
    }
    close(fd);
    return address;
}

static int describe(struct microphone *mic) {
    static const unsigned access[] = {SND_PCM_ACCESS_RW_INTERLEAVED, SND_PCM_ACCESS_MMAP_INTERLEAVED};
    static const unsigned format[] = {SND_PCM_FORMAT_S16_LE};
    unsigned frame = mic->channels * 2;
    snd_pcm_ioplug_t *io = &mic->io;
    int error;
    if ((error = snd_pcm_ioplug_set_param_list(io, SND_PCM_IOPLUG_HW_ACCESS, 2, access)) < 0 ||
        (error = snd_pcm_ioplug_set_param_list(io, SND_PCM_IOPLUG_HW_FORMAT, 1, format)) < 0 ||
        (error = snd_pcm_ioplug_set_param_minmax(io, SND_PCM_IOPLUG_HW_CHANNELS, mic->channels, mic->channels)) < 0 ||
        (error = snd_pcm_ioplug_set_param_minmax(io, SND_PCM_IOPLUG_HW_RATE, mic->rate, mic->rate)) < 0 ||
        (error = snd_pcm_ioplug_set_param_minmax(io, SND_PCM_IOPLUG_HW_PERIOD_BYTES, 64 * frame, 16384 * frame)) < 0)
        return error;
    return snd_pcm_ioplug_set_param_minmax(io, SND_PCM_IOPLUG_HW_PERIODS, 2, 64);
}

SND_PCM_PLUGIN_DEFINE_FUNC(testmic) {
    const char *wave = NULL, *control = NULL;
    long rate = 16000, channels = 1;
    size_t control_bytes = 0;
    struct microphone *mic;
    snd_config_iterator_t i, next;
    int error;

    (void)root;
    if (stream != SND_PCM_STREAM_CAPTURE) return -EINVAL;
    snd_config_for_each(i, next, conf) {
        snd_config_t *entry = snd_config_iterator_entry(i);
        const char *key;
        if (snd_config_get_id(entry, &key) < 0) continue;
        if (!strcmp(key, "wave")) snd_config_get_string(entry, &wave);
        if (!strcmp(key, "control")) snd_config_get_string(entry, &control);
        if (!strcmp(key, "rate")) snd_config_get_integer(entry, &rate);
        if (!strcmp(key, "channels")) snd_config_get_integer(entry, &channels);
    }
    if (!(mic = calloc(1, sizeof *mic))) return -ENOMEM;
    mic->rate = (unsigned)rate;
    mic->channels = (unsigned)channels;
    mic->io.poll_fd = -1;
    mic->control = map(control, 1, &control_bytes);
    if (!mic->control || control_bytes < sizeof *mic->control) {
        SNDERR("testmic: control: expected a file of %zu bytes, found %s", sizeof *mic->control, control);
        release(mic);
        return -EINVAL;
    }
    if (gone(mic)) {
        release(mic);
        return -ENODEV;
    }
    mic->wave = map(wave, 0, &mic->wave_bytes); /* none: silence */
    mic->wave_frames = mic->wave ? mic->wave_bytes / (mic->channels * sizeof *mic->wave) : 0;
    mic->io.version = SND_PCM_IOPLUG_VERSION;
    mic->io.name = "microphone for tests";
    mic->io.flags = SND_PCM_IOPLUG_FLAG_MONOTONIC;
    mic->io.callback = &callbacks;
    mic->io.private_data = mic;
    mic->io.poll_events = POLLIN;
    mic->io.poll_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (mic->io.poll_fd < 0 || (error = snd_pcm_ioplug_create(&mic->io, name, stream, mode)) < 0) {
        error = mic->io.poll_fd < 0 ? -errno : error;
        release(mic);
        return error;
    }
    if ((error = describe(mic)) < 0) {
        snd_pcm_ioplug_delete(&mic->io); /* calls on_close */
        return error;
    }
    *pcmp = mic->io.pcm;
    return 0;
}
SND_PCM_PLUGIN_SYMBOL(testmic);
