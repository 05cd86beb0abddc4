"""Between ROS messages and our records. Message packages are imported where a message is made."""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from drivers.sound import SENTENCE, UNIT, excerpt, is_number, is_vector, length
from robot_rl.depth import millimetres
from robot_rl.types import Frame, RobotRLError

if TYPE_CHECKING:
    from builtin_interfaces.msg import Time
    from diagnostic_msgs.msg import DiagnosticStatus
    from geometry_msgs.msg import PoseArray, PoseStamped
    from sensor_msgs.msg import Image, JointState
    from std_msgs.msg import Header

LAST_SECOND = 2**31  # builtin_interfaces/Time counts seconds in an int32
DIGITS = 20  # of a number of a lease, at most: longer ones take long to read
OPENING = re.compile(r"|-?[0-9]{1,20}([.][0-9]{1,30})?(e[-+]?[0-9]{1,2})?")  # as Python writes a float, or nothing
PAIRS = 100  # of a status that are read: the arm's node tells 20
READABLE = {"rgb8": 3, "bgr8": 3, "16UC1": 2, "32FC1": 4}  # bytes of a pixel


def stamp_of(header: Header) -> float:
    """The header's stamp [s]; a float keeps it to 0.3 us until 2038."""
    return float(header.stamp.sec + 1e-9 * header.stamp.nanosec)


def stamp_msg(seconds: float) -> Time:
    """The moment `seconds` since 1970, or since the simulation began, as builtin_interfaces/Time."""
    from builtin_interfaces.msg import Time

    if not 0 <= seconds < LAST_SECOND:
        raise RobotRLError(f"no ROS message can carry the stamp {seconds} s: it takes 0 to {LAST_SECOND}")
    sec, nanosec = divmod(round(seconds * 1e9), 10**9)
    return Time(sec=sec, nanosec=nanosec)


def image_msg(frame: Frame, frame_id: str) -> Image:
    """The picture as sensor_msgs/Image, rgb8 or, of depth, 16UC1 [mm], stamped with the moment it was taken."""
    from sensor_msgs.msg import Image

    height, width, _ = frame.image.shape
    encoding = "16UC1" if frame.image.dtype == np.uint16 else "rgb8"
    message = Image(height=height, width=width, encoding=encoding, step=READABLE[encoding] * width)
    message.header.stamp = stamp_msg(frame.stamp)
    message.header.frame_id = frame_id
    # Where ROS checks fields, only an array('B') is taken as it is; bytes are checked one by one, 90 ms for 640 x 480.
    message.data = array("B")
    message.data.frombytes(np.ascontiguousarray(frame.image).data.cast("B"))
    return message


def frame_of(message: Image) -> Frame:
    """The picture (H, W, 3) uint8 RGB of rgb8 or bgr8, or depth (H, W, 1) uint16 [mm] of 16UC1 [mm] or 32FC1 [m].

    Its number is 0, as ROS 2 messages carry no count.
    """
    height, width, step = message.height, message.width, message.step
    if message.encoding not in READABLE:
        readable, encoding = " or ".join(READABLE), excerpt(message.encoding)
        raise RobotRLError(f"pictures in '{encoding}' are not read: let the camera's node publish {readable}")
    if not height * width:
        raise RobotRLError(f"a picture of {width} x {height} shows nothing")
    row = READABLE[message.encoding] * width  # bytes
    if step < row or len(message.data) != step * height:
        raise RobotRLError(
            f"a picture says {height} rows of {step} bytes for {width} pixels, and has {len(message.data)} bytes in all"
        )
    rows = np.ascontiguousarray(np.frombuffer(message.data, np.uint8).reshape(height, step)[:, :row])
    if READABLE[message.encoding] == 3:
        image = rows.reshape(height, width, 3)[..., :: -1 if message.encoding == "bgr8" else 1]
    else:
        image = _depth_of(rows, message)
    return Frame(stamp_of(message.header), np.ascontiguousarray(image), 0)


def _depth_of(rows: np.ndarray, message: Image) -> np.ndarray:
    """(H, W, 1) uint16 [mm] of a 16UC1 or 32FC1 message's `rows` (H, bytes)."""
    order = ">" if message.is_bigendian else "<"
    if message.encoding == "32FC1":
        return millimetres(rows.view(f"{order}f4"))
    return rows.view(f"{order}u2").astype(np.uint16)[..., None]


def pose_msg(stamp: float, frame_id: str, position: np.ndarray, turn: np.ndarray) -> PoseStamped:
    """Position (3,) [m] and quaternion (4,) xyzw in the frame `frame_id`, as geometry_msgs/PoseStamped."""
    from geometry_msgs.msg import PoseStamped

    message = PoseStamped()
    message.header.stamp, message.header.frame_id = stamp_msg(stamp), frame_id
    p, q = message.pose.position, message.pose.orientation
    p.x, p.y, p.z = (float(v) for v in position)
    q.x, q.y, q.z, q.w = (float(v) for v in turn)
    return message


def pose_of(message: PoseStamped) -> tuple[np.ndarray, np.ndarray]:
    """The inverse of `pose_msg`: position (3,) [m] and quaternion (4,) xyzw."""
    p, q = message.pose.position, message.pose.orientation
    return np.array([p.x, p.y, p.z]), np.array([q.x, q.y, q.z, q.w])


def sound_pose_of(message: PoseStamped) -> tuple[np.ndarray, np.ndarray] | None:
    """The same, of who is told nothing else of it; None: that is no pose."""
    position, turn = pose_of(message)
    sound = is_vector(position, 3) and is_vector(turn, 4) and abs(length(turn) - 1) <= UNIT
    return (position, turn) if sound else None


def one_number(values: Sequence[float]) -> float:
    """The only one in a message that takes one; NaN: it has none, several, or one that is none."""
    return float(values[0]) if len(values) == 1 and is_number(float(values[0])) else math.nan


def path_msg(stamp: float, frame_id: str, path: np.ndarray) -> PoseArray:
    """Places (n, 3) [m] in the frame `frame_id`, none turned, as geometry_msgs/PoseArray."""
    from geometry_msgs.msg import Point, Pose, PoseArray

    message = PoseArray(poses=[Pose(position=Point(x=float(x), y=float(y), z=float(z))) for x, y, z in path])
    message.header.stamp, message.header.frame_id = stamp_msg(stamp), frame_id
    return message


def path_of(message: PoseArray) -> np.ndarray:
    """The inverse of `path_msg`: (n, 3)."""
    return np.array([[p.position.x, p.position.y, p.position.z] for p in message.poses]).reshape(-1, 3)


def numbers_msg(stamp: float, names: list[str], values: np.ndarray) -> JointState:
    """Named numbers as sensor_msgs/JointState: joints, and whatever else has names."""
    from sensor_msgs.msg import JointState

    message = JointState(name=names, position=np.asarray(values, np.float64).tolist())
    message.header.stamp = stamp_msg(stamp)
    return message


def status_of(message: DiagnosticStatus) -> tuple[dict[str, str], str]:
    """The values of an `arm_status` by their keys, and why nobody commands the arm; cut, as programs tell them."""
    values = {excerpt(pair.key): excerpt(pair.value, SENTENCE) for pair in message.values[:PAIRS]}
    return values, excerpt(message.message, SENTENCE)


def status_wrong(
    status: Mapping[str, str], keys: Sequence[str] = ("holder", "lease", "rests", "at home", "sees the arm")
) -> str:
    """What of an `arm_status`, of which `keys` are needed, is not as the arm's node tells it; "": nothing is."""
    if missing := [key for key in keys if key not in status]:
        return f"it lacks {', '.join(missing)}"
    for key in ("lease", "armed as", "started"):
        if not (number := status.get(key, "0")).isdecimal() or len(number) > DIGITS:
            return f"its {key} is no number: {number[:DIGITS]!r}"
    opening = status.get("opening", "")
    return "" if OPENING.fullmatch(opening) else f"its opening is no number: {excerpt(opening)!r}"
