"""How a simulated robot talks: the topics of a vendor, of ros2_control, of Isaac Sim."""
