/*
 * PSA Certified Firmware Update API 1.0 (Arm IHI 0093, version 1.0.1), for clients of the fwu-ab service.
 *
 * The functions are calls over D-Bus: to the system bus, or to the one that the environment variable FWU_AB_BUS names ("system", "session" or an address).
 * They wait for the answer, however long the service works on it. All of them may be called from any thread at any time; what one thread waits for does not
 * keep others waiting, so that psa_fwu_cancel ends a psa_fwu_finish of another thread.
 *
 * Where the service cannot be reached, or goes away before it has answered, they return PSA_ERROR_COMMUNICATION_FAILURE. In the latter case the
 * service may have done what it was asked for: psa_fwu_query tells. A caller whom the bus or polkit turns away gets PSA_ERROR_NOT_PERMITTED, one whose
 * service does not fit the constants of this file PSA_ERROR_NOT_SUPPORTED. A null pointer to what is not empty is PSA_ERROR_INVALID_ARGUMENT.
 *
 * psa_fwu_impl_info_t grows: a member that comes later takes its room from reserved, so that size and offsets stay, and a program that was compiled before runs on. If
 * they had to change, the soname would.
 */
#ifndef PSA_UPDATE_H
#define PSA_UPDATE_H

#include <stddef.h>
#include <stdint.h>

#include "psa/error.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Version of the API (section 5.3). */
#define PSA_FWU_API_VERSION_MAJOR 1
#define PSA_FWU_API_VERSION_MINOR 0

/* Status codes of this API (section 5.4). */
#define PSA_ERROR_DEPENDENCY_NEEDED  ((psa_status_t)-156)
#define PSA_ERROR_FLASH_ABUSE        ((psa_status_t)-160)
#define PSA_ERROR_INSUFFICIENT_POWER ((psa_status_t)-161)
#define PSA_SUCCESS_REBOOT           ((psa_status_t)+1)
#define PSA_SUCCESS_RESTART          ((psa_status_t)+2)

/* Identifies a component: `id` in the configuration of the service. */
typedef uint8_t psa_fwu_component_t;

/* Version of an image. */
typedef struct psa_fwu_image_version_t {
    uint8_t major;
    uint8_t minor;
    uint16_t patch;
    uint32_t build;
} psa_fwu_image_version_t;

/* States of a component (section 5.5.3). */
#define PSA_FWU_READY     0u
#define PSA_FWU_WRITING   1u
#define PSA_FWU_CANDIDATE 2u
#define PSA_FWU_STAGED    3u
#define PSA_FWU_FAILED    4u
#define PSA_FWU_TRIAL     5u
#define PSA_FWU_REJECTED  6u
#define PSA_FWU_UPDATED   7u

/* Flags of a component (section 5.5.4). */
#define PSA_FWU_FLAG_VOLATILE_STAGING 0x00000001u
#define PSA_FWU_FLAG_ENCRYPTION       0x00000002u

/*
 * What this implementation tells of a component beyond the specification. What is not known is 0 or empty. A digest, path or code that has no room is
 * empty; reason_text is cut.
 */
typedef struct psa_fwu_impl_info_t {
    uint64_t written;          /* bytes of the image in preparation that are durable: where a transfer goes on after an interruption */
    uint64_t image_size;       /* of the image in preparation */
    uint64_t sequence;         /* lowest sequence number that may be installed */
    uint64_t since;            /* when the component came into its state, in seconds since 1970 */
    uint64_t received;         /* of the image in preparation, since its slot was opened: bytes taken from the client, */
    uint64_t equal;            /* bytes that the slot had already, */
    uint64_t zeroed;           /* zeroes by a command of the medium, */
    uint64_t stored;           /* bytes written, */
    uint64_t read_back;        /* and bytes read back */
    uint64_t max_size;         /* largest image, in bytes, where max_size of the component has no room for it */
    char manifest_digest[144]; /* "sha256:" and hexadecimal digits: manifest that the image in preparation was started with */
    char digest[144];          /* of the active image, as above */
    char active_slot[256];     /* path of the device that holds the active image */
    char second_slot[256];     /* and of the other one */
    char reason[64];           /* why the component is in its state: a code that does not change its meaning */
    char reason_text[256];     /* the same for people, in UTF-8 */
    /* The image in the second slot: the one that waits, that was given up, or that ran before. */
    uint64_t second_sequence;   /* its sequence number */
    uint64_t started;           /* when its preparation began, in seconds since 1970 */
    psa_fwu_image_version_t second_version;
    char second_digest[144];    /* "sha256:" and hexadecimal digits; while it is written, the one that its manifest demands */
    char second_manifest[144];  /* of its manifest, as above */
    char second_signer[256];    /* who signed that, for people; it is cut */
    char started_by[256];       /* unit or program of the client that started its preparation */
    char blocked_text[256];     /* of a candidate that psa_fwu_install would refuse with PSA_ERROR_DEPENDENCY_NEEDED: why, for people; it is cut */
    uint8_t blocked_count;      /* the components that this is about, */
    psa_fwu_component_t blocked_by[15]; /* as far as there is room for them */
    uint8_t reserved[512];      /* zero: what comes later takes its room from here, so that the size stays */
} psa_fwu_impl_info_t;

/* What psa_fwu_query tells (section 5.5.5). */
typedef struct psa_fwu_component_info_t {
    uint8_t state;                   /* one of the states */
    psa_status_t error;              /* in FAILED and REJECTED: why */
    psa_fwu_image_version_t version; /* of the active image */
    uint32_t max_size;               /* of an image, in bytes; UINT32_MAX if it is more than that */
    uint32_t flags;                  /* the flags */
    uint32_t location;               /* index of the active slot: 0 for a, 1 for b */
    psa_fwu_impl_info_t impl;
} psa_fwu_component_info_t;

/* Tells the state of a component: one consistent snapshot. After an error *info is all zero. */
psa_status_t psa_fwu_query(psa_fwu_component_t component,
                           psa_fwu_component_info_t *info);

/*
 * Begins the preparation of an image. manifest is that of the image for a component whose manifests are "detached", and NULL with a size of 0 for one whose
 * manifests are "bundled" or that has none.
 */
psa_status_t psa_fwu_start(psa_fwu_component_t component,
                           const void *manifest,
                           size_t manifest_size);

/* Offsets of psa_fwu_write are multiples of 4096 bytes. */
#define PSA_FWU_LOG2_WRITE_ALIGN 12

/* Largest block of psa_fwu_write, in bytes. */
#define PSA_FWU_MAX_WRITE_SIZE 1048576u

/*
 * Stores a block of the image. Blocks come in any order for a component that has no manifest or a detached one, and from the beginning to the end, without
 * gaps, for one whose manifest is bundled with the image.
 */
psa_status_t psa_fwu_write(psa_fwu_component_t component,
                           size_t image_offset,
                           const void *block,
                           size_t block_size);

/* Declares the image complete; it is verified. May take long. */
psa_status_t psa_fwu_finish(psa_fwu_component_t component);

/* Ends the preparation of an image, and a psa_fwu_finish that is under way, which returns PSA_ERROR_BAD_STATE. */
psa_status_t psa_fwu_cancel(psa_fwu_component_t component);

/* Makes a component ready for the next image. May take long. */
psa_status_t psa_fwu_clean(psa_fwu_component_t component);

/* Installs every candidate, or none. Returns PSA_SUCCESS_REBOOT if a reboot is needed to complete it. */
psa_status_t psa_fwu_install(void);

/* Asks for a reboot. Returns when the system has accepted the request; the reboot comes soon. */
psa_status_t psa_fwu_request_reboot(void);

/* Gives up what is staged or in trial. error is the caller's reason, 0 for none. Returns as psa_fwu_install does. */
psa_status_t psa_fwu_reject(psa_status_t error);

/* Keeps what is in trial. */
psa_status_t psa_fwu_accept(void);

#ifdef __cplusplus
}
#endif

#endif /* PSA_UPDATE_H */
